"""The GPU kernels of convmixer.kernels: checked, then timed against the time that their memory traffic takes.

    python benchmarks/gpu_kernels.py [--batch 256] [--candidates] [--output benchmarks/results/gpu_kernels.json]
    python benchmarks/gpu_kernels.py --plan                             then chooses a plan for each variant's training
    python benchmarks/gpu_kernels.py --check_only --candidates          checks, and compiles what will be timed
    TRITON_INTERPRET=1 python benchmarks/gpu_kernels.py --check_only    on a CPU: tiny maps in fp32

Each pass of the fused network on the maps of each published variant at 224 px in bf16, beside torch's eager pass where
it has one, one turn of each after the other. Every output is compared with float64 on fresh random inputs first; what
is wrong is not timed. `--candidates` adds each other form of a pass and each choice of `tiling`; `--plan` times those
of `convmixer.kernels.tuning` and says which it takes. Prints a table; writes the same as JSON with hardware and
versions. Whole networks: `network_check.py`, `model_speed.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import torch
from kernel_cases import Case, Maps, error_of, small
from machine import hardware, versions

from convmixer.arch import VARIANTS, Architecture
from convmixer.backends.autotune.benchmark import reason
from convmixer.kernels.timing import milliseconds


@dataclass
class Measured:
    """One line of the table. `error` is a share of what is allowed; times in milliseconds, medians; `floor` is the
    larger of memory and matrix time."""

    variant: str
    name: str
    error: float = 0.0
    floor: float | None = None
    ours: float | None = None
    eager: float | None = None
    note: str = ""

    @property
    def right(self) -> bool:
        return not self.note and self.error <= 1

    def __str__(self) -> str:
        def cell(value: float | None) -> str:
            return "       -" if value is None else f"{value:8.3f}"

        fraction = f"{self.floor / self.ours:5.0%}" if self.ours and self.floor else "    -"
        verdict = f"{self.error:.2g}" if self.right else f"WRONG {self.error:.2g} {self.note}"
        times = " ".join(cell(value) for value in (self.floor, self.ours, self.eager))
        return f"{self.variant:17} {self.name:54} {times} {fraction}  {verdict}"


@dataclass(frozen=True)
class Device:
    """Measured rates: bytes per second of a large copy (read and written), operations per second of a bf16 product."""

    device: torch.device
    bandwidth: float
    matrix: float


def clocked(calls: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Milliseconds of each call. In the interpreter, where they mean nothing, one call by the clock."""
    if device.type == "cuda":
        return milliseconds(calls, repeats=3, device=device)
    found = []
    for call in calls:
        begin = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - begin))
    return found


def measure_device(device: torch.device) -> Device:
    size, side = (1 << 30, 8192) if device.type == "cuda" else (1 << 20, 64)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=device).bfloat16()
    copy, product = clocked([lambda: target.copy_(source), lambda: a @ a], device)
    return Device(device, 2 * size / copy * 1e3, 2 * side**3 / product * 1e3)


def lines(name: str, arch: Architecture, options: argparse.Namespace, rates: Device | None) -> Iterator[Measured]:
    """All lines of a variant; without rates, checks alone."""
    device = torch.device(options.device)
    dtype, side = torch.float32, 5
    if device.type == "cuda":
        dtype, side = torch.bfloat16, 224 // arch.patch_size
    checked = {}
    for at, case in enumerate(small(arch, side, dtype, device).cases(candidates=options.candidates)):
        if at % options.share[1] != options.share[0]:
            continue
        line = Measured(name, case.name)
        try:
            line.error = error_of(case.ours(), case.exact(), dtype)
        except Exception as error:  # a form that needs more of the device than it has must not take the others with it
            line.note = reason(error)
        checked[case.name] = line
        if rates is None:
            yield line
    if rates is None:
        return
    # In the interpreter the maps of the check are large enough, and nothing that is timed there means anything.
    maps = Maps(arch, options.batch, side, dtype, device) if device.type == "cuda" else small(arch, side, dtype, device)
    for case in maps.cases(candidates=options.candidates):
        if (found := checked.get(case.name)) is not None:
            yield timed(found, case, maps, rates) if found.right else found


def timed(line: Measured, case: Case, maps: Maps, rates: Device) -> Measured:
    memory = case.maps * maps.x.numel() * maps.x.element_size() / rates.bandwidth
    line.floor = 1e3 * max(memory, case.operations / rates.matrix)
    backends = [case.ours] if case.eager is None else [case.ours, case.eager]
    try:
        line.ours, *eager = clocked(backends, rates.device)
    except Exception as error:
        line.note = reason(error)
        return line
    line.eager = eager[0] if eager else None
    return line


def chosen_plan(name: str, arch: Architecture, options: argparse.Namespace) -> str:
    """The plan that `tuning` takes for training; prints the times of each form."""
    from convmixer.kernels.tuning import tuned_plan

    device = torch.device(options.device)
    size, dtype = 224, torch.bfloat16
    if device.type != "cuda":
        arch, size, dtype = replace(arch, dim=2, num_classes=2), 2 * arch.patch_size, torch.float32
    plan = tuned_plan(
        *(arch, options.batch, size, dtype, device),
        training=True,
        seconds=options.plan,
        say=lambda text: print(f"{name} {text}", flush=True),
        timer=lambda calls: clocked(calls, device),
    )
    print(f"{name} plan: {str(plan) or 'the default'}", flush=True)
    return str(plan)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--candidates", action="store_true", help="every other form and choice of tiles too")
    parser.add_argument("--plan", type=float, nargs="?", const=60.0, metavar="SECONDS", help="for each variant")
    parser.add_argument("--check_only", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--share", nargs=2, type=int, default=(0, 1), metavar=("I", "N"), help="only the I-th of N shares of the passes"
    )
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> int:
    options = parse()
    torch.manual_seed(0)
    rates = None if options.check_only else measure_device(torch.device(options.device))
    if rates:
        print(f"copy {rates.bandwidth / 1e12:.2f} TB/s, bf16 product {rates.matrix / 1e12:.0f} TFLOP/s")
    print(f"{'variant':17} {'pass':54} {'floor ms':>8} {'ours':>8} {'eager':>8}  part  error, of 1")
    found: list[Measured] = []
    record: dict[str, Any] = {}
    plans: dict[str, str] = {}
    for name in options.variants:
        for line in lines(name, VARIANTS[name], options, rates):
            found.append(line)
            print(line, flush=True)
            if options.output:
                record |= {"hardware": hardware(), "versions": versions(), "batch": options.batch}
                record["rates"] = None if rates is None else {"bandwidth": rates.bandwidth, "matrix": rates.matrix}
                record["lines"] = [asdict(one) | {"right": one.right} for one in found]
                options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name in options.variants if options.plan else ():
        plans[name] = chosen_plan(name, VARIANTS[name], options)
        if options.output:
            options.output.write_text(json.dumps(record | {"plans": plans}, indent=1) + "\n", encoding="utf-8")
        if rates and rates.device.type == "cuda":
            torch.cuda.empty_cache()
    wrong = [line.name for line in found if not line.right]
    print(f"{len(found) - len(wrong)} right, {len(wrong)} wrong" + "".join(f"; {name}" for name in wrong[:5]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
