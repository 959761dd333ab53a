"""The GPU kernels of convmixer.kernels: checked, then timed against the time that their memory traffic takes.

    python benchmarks/gpu_kernels.py [--batch 256] [--tune] [--output benchmarks/results/gpu_kernels.json]
    TRITON_INTERPRET=1 python benchmarks/gpu_kernels.py --check-only        on a CPU: tiny maps, nothing timed

For the maps of each published variant at 224 px in bf16: the depthwise convolution with both gradients, each pass of a
fused block, the block and the network, in training and inference, beside torch's eager way in the same run, one call
of each in turn. A result is compared with float64 on fresh random inputs first; what is wrong is not timed. `--tune`
also times every choice of `tiling`. Prints a table; writes the same as JSON with hardware and versions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from kernel_cases import Case, Maps, Way, check, error_of

from convmixer.arch import VARIANTS, Architecture
from convmixer.kernels.block import fused_forward
from convmixer.model import ConvMixer

# Of the largest value, against float64: 16-bit results are rounded once, sums of them several times.
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 1e-4}


@dataclass
class Measured:
    """One line of the table. Times in milliseconds, medians; `floor` is the larger of memory and matrix time."""

    variant: str
    name: str
    error: float
    right: bool
    floor: float | None = None
    ours: float | None = None
    eager: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Device:
    """Measured rates: bytes a second of a large copy (read and written), operations a second of a bf16 product."""

    device: torch.device
    bandwidth: float
    matrix: float


def timed(ways: list[Way], repeats: int) -> list[float]:
    """Median milliseconds of each, called in turn so that clocks and neighbours treat them alike."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(repeats + 3):
        for way, found in zip(ways, times, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            way()
            end.record()
            end.synchronize()
            if turn >= 3:
                found.append(start.elapsed_time(end))
    return [statistics.median(found) for found in times]


def measure_device(device: torch.device) -> Device:
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a = torch.randn(8192, 8192, device=device).bfloat16()
    copy, product = timed([lambda: target.copy_(source), lambda: a @ a], 20)
    return Device(device, 2 * source.numel() / copy * 1e3, 2 * 8192**3 / product * 1e3)


def networks(name: str, arch: Architecture, batch: int, rates: Device) -> Iterator[Measured]:
    """Images a second of the whole network, fused and eager, under bf16 autocast."""
    torch.manual_seed(0)
    model = ConvMixer(arch).to(rates.device)
    images = torch.randn(batch, 3, 224, 224, device=rates.device)
    side = 224 // arch.patch_size
    size, positions = 2.0 * batch * arch.dim * side * side, batch * side * side
    product = 2.0 * arch.dim**2 * positions / rates.matrix

    def inference(forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            return forward()

    def training(forward: Callable[[], torch.Tensor]) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = forward().float().square().mean()
        loss.backward()

    # 20 maps a block in training; 9 of them are those of the three products, 2, 2 and 5 of the data gradient.
    floors = {
        "network, inference": arch.depth * (2 * size / rates.bandwidth + max(2 * size / rates.bandwidth, product)),
        "network, training step": arch.depth
        * (
            11 * size / rates.bandwidth
            + 2 * max(2 * size / rates.bandwidth, product)
            + max(5 * size / rates.bandwidth, product)
        ),
    }
    for label, step, mode in (("network, inference", inference, False), ("network, training step", training, True)):
        model.train(mode)
        with torch.no_grad():
            reference = model(images[:64])
            with torch.autocast("cuda", dtype=torch.bfloat16):
                error = error_of(fused_forward(model, images[:64]), reference.double())
        ways = [lambda s=step: s(lambda: fused_forward(model, images)), lambda s=step: s(lambda: model(images))]
        line = Measured(name, label, error, error <= 0.1, floors[label] * 1e3, note=f"batch {batch}")
        if line.right:
            torch.cuda.reset_peak_memory_stats()
            ways[0]()
            line.note += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
            line.ours, line.eager = timed(ways, 5)
            line.note += f", {batch / line.ours * 1e3:.0f} img/s (eager {batch / line.eager * 1e3:.0f})"
        yield line


def lines(name: str, arch: Architecture, batch: int, rates: Device | None, tune: bool) -> Iterator[Measured]:
    """All lines of a variant; without rates, checks alone, on small maps in fp32."""
    side = 224 // arch.patch_size if rates else 5
    dtype = torch.bfloat16 if rates else torch.float32
    device = rates.device if rates else torch.device("cpu")
    errors = check(arch, side, dtype, device)
    maps = Maps(arch, batch, side, dtype, device) if rates else None
    for label, error in errors.items():
        line = Measured(name, label, error, error <= TOLERANCE[dtype])
        if rates and maps:
            case = next(case for case in maps.cases() if case.name == label)
            line = with_times(line, case, maps, rates)
        yield line
    if rates and maps and tune:
        for case in maps.choices():
            try:
                yield with_times(Measured(name, case.name, 0.0, True, note="a choice, not checked"), case, maps, rates)
            except Exception as error:  # a choice that needs more of the device than it has
                yield Measured(name, case.name, 0.0, False, note=str(error).splitlines()[0][:80])
    del maps
    if rates:
        torch.cuda.empty_cache()
        yield from networks(name, arch, batch, rates)


def with_times(line: Measured, case: Case, maps: Maps, rates: Device) -> Measured:
    memory = case.maps * maps.x.numel() * maps.x.element_size() / rates.bandwidth
    line.floor = 1e3 * max(memory, case.operations / rates.matrix)
    if line.right:
        ours, *eager = timed([case.ours] if case.eager is None else [case.ours, case.eager], 20)
        line.ours, line.eager = ours, eager[0] if eager else None
    return line


def printed(line: Measured) -> str:
    def cell(value: float | None) -> str:
        return "       -" if value is None else f"{value:8.3f}"

    fraction = f"{line.floor / line.ours:5.0%}" if line.ours and line.floor else "    -"
    verdict = f"{line.error:.1e}" if line.right else f"WRONG {line.error:.1e}"
    times = " ".join(cell(value) for value in (line.floor, line.ours, line.eager))
    return f"{line.variant:18} {line.name:44} {times} {fraction}  {verdict} {line.note}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rates = None if options.check_only else measure_device(torch.device("cuda"))
    torch.manual_seed(0)
    if rates:
        print(f"copy {rates.bandwidth / 1e12:.2f} TB/s, bf16 product {rates.matrix / 1e12:.0f} TFLOP/s")
    print(f"{'variant':18} {'pass':44} {'floor ms':>8} {'ours':>8} {'eager':>8}  part  error")
    found: list[Measured] = []
    for name in options.variants:
        for line in lines(name, VARIANTS[name], options.batch, rates, options.tune):
            found.append(line)
            print(printed(line), flush=True)
    if options.output:
        record = {
            "hardware": torch.cuda.get_device_name() if rates else "cpu, nothing timed",
            "torch": torch.__version__,
            "rates": asdict(replace(rates, device=str(rates.device))) if rates else None,  # type: ignore[arg-type]
            "lines": [asdict(line) for line in found],
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(line.right for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
