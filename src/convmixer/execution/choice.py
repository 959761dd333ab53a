"""Which way a job runs: what the user asked for, or the fastest of those measured that gives the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from convmixer.errors import RUN_FAILED, UserError
from convmixer.execution import cache
from convmixer.execution.job import Job
from convmixer.execution.measure import Timing, measure, reason
from convmixer.execution.ways import Kind, Way, ways_for
from convmixer.model import ConvMixer
from convmixer.progress import note

Execution = Literal["auto", "eager", "compile", "fused", "openvino"]

# Seconds that a job must take (nominally) for the ways to be timed, and for torch.compile, which itself needs a
# minute or two, to be among them; seconds that the timing itself may take.
OUTLASTS = 60.0
OUTLASTS_COMPILE = 1200.0
TUNING_SECONDS = 10.0


_LEAVE_OUT = "leave the option out to run the fastest way that does work"
# What a kind of way needs to be there at all.
_NEEDS: dict[Kind, str] = {
    "eager": "",
    "compile": "a C++ compiler on a CPU, and on a GPU the package triton",
    "fused": "an odd kernel size and fp32 or bf16 on a CPU, and on a GPU the package triton",
    "openvino": "inference on a CPU in fp32, or in bf16 where the processor has it: pip install 'convmixer[openvino]'",
}


def choose_network(
    model: ConvMixer, job: Job, images: int, execution: Execution = "auto", say: Callable[[str], None] = note
) -> nn.Module:
    """The network that runs `model` on a job of so many images, and a line that says which way it is.

    Short jobs under `auto` run eager, unmeasured and unsaid. A way that `auto` took and that fails, now or at its first
    call, is left for plain eager with a line that says why. One that was asked for by name is not: that is a UserError.
    """
    return build_network(choose_way(model, job, images, execution, say), model, job, execution, say)


def build_network(
    name: str, model: ConvMixer, job: Job, execution: Execution = "auto", say: Callable[[str], None] = note
) -> nn.Module:
    """The network of the way that `choose_way` named.

    Raises UserError where one that was asked for cannot be built, and at its first call where that fails (exit 1).
    """
    ways = {way.name: way for way in ways_for(job)}
    default, way = next(iter(ways.values())), ways[name]
    asked = execution != "auto"
    try:
        network = way.build(model, job)
    except Exception as error:  # whatever a compiler or a library raises, the job can run eager
        if asked:
            raise UserError(f"--execution: {way.name} failed ({reason(error)}); {_LEAVE_OUT}") from None
        say(f"execution: {way.name} failed ({reason(error)}); running eager")
        return default.build(model, job)
    return network if way.kind == "eager" else WithFallback(network, model, way.name, say, asked=asked)


def ways_asked_for(job: Job, execution: Execution) -> list[Way]:
    """The ways of a job that `execution` allows, plain eager first.

    Raises UserError where it names what is not there.
    """
    ways = ways_for(job)
    wanted = [way for way in ways if execution in ("auto", way.kind)]
    if not wanted:
        what = f"{'training' if job.training else 'inference'} of this network on {job.device.type}"
        assert execution != "auto"
        raise UserError(
            f"--execution: there is nothing {execution} for {what}{_in_16_bits(job)}; it needs {_NEEDS[execution]}"
        )
    return wanted


def choose_way(
    model: ConvMixer, job: Job, images: int, execution: Execution = "auto", say: Callable[[str], None] = note
) -> str:
    """Name of the way to take. `images` 0: without any measurement. Raises UserError as `ways_asked_for`."""
    default = ways_for(job)[0]
    wanted = ways_asked_for(job, execution)
    if execution == "eager":
        return default.name
    seconds = job.nominal_seconds(images)
    if seconds < OUTLASTS or len(wanted) == 1:
        if execution != "auto":
            say(f"execution: {wanted[0].name}{_in_16_bits(job)}, as asked for")
        return wanted[0].name
    if execution == "auto" and seconds < OUTLASTS_COMPILE:
        wanted = [way for way in wanted if way.kind != "compile"]
    timings = _timings([default, *(way for way in wanted if way is not default)], model, job, say)
    usable = [way for way in wanted if timings[way.name].failure is None]
    if not usable and execution != "auto" and timings[default.name].failure is None:
        why = f"{wanted[0].name} failed ({timings[wanted[0].name].failure})"
        raise UserError(f"--execution: {why}; {_LEAVE_OUT}", exit_code=RUN_FAILED)
    usable = usable or wanted[:1]
    best = min(usable, key=lambda way: timings[way.name].total(images)).name
    say(f"execution: {best}{_in_16_bits(job)}{_speed(timings[best], timings[default.name])}")
    if job.device.type == "cpu" and job.dtype == torch.float32 and has_bf16_units():
        say("execution: this processor has matrix units for bf16; --amp_level O1 uses them")
    return best


def has_bf16_units() -> bool:
    """Whether the processor multiplies bf16 matrices as such (Intel's AMX)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def _in_16_bits(job: Job) -> str:
    return {torch.bfloat16: " in bf16", torch.float16: " in fp16"}.get(job.dtype, "")


def _timings(ways: Sequence[Way], model: ConvMixer, job: Job, say: Callable[[str], None]) -> dict[str, Timing]:
    """Of each way, measured now or before. The first of `ways` is plain eager."""
    tuned = job.for_tuning(TUNING_SECONDS / 10)
    timings = cache.load(tuned)
    if all(way.name in timings for way in ways):
        return timings
    say(f"execution: timing {len(ways)} ways of running the network")
    try:
        timings |= measure(ways, model, tuned, TUNING_SECONDS)
    except torch.OutOfMemoryError:
        say("execution: not measured, the check in fp32 does not fit into the device's memory")
        return {way.name: Timing(failure="not measured") for way in ways}
    cache.save(tuned, timings)
    for way in ways:
        if timings[way.name].failure is not None:
            say(f"execution: not {way.name}: {timings[way.name].failure}")
    return timings


def _speed(timing: Timing, eager: Timing) -> str:
    if timing.failure is not None:
        return ""
    compared = timing != eager and eager.failure is None
    ratio = f", {eager.image_seconds / timing.image_seconds:.1f} times eager" if compared else ""
    return f"{ratio} ({1 / timing.image_seconds:.4g} img/s)"


class WithFallback(nn.Module):
    """Calls `network`, or for good `model` itself once the first call of `network` has failed.

    Of a network that was `asked` for by name that failure is a UserError (exit 1).
    """

    def __init__(
        self,
        network: nn.Module,
        model: ConvMixer,
        name: str,
        say: Callable[[str], None] = note,
        *,
        asked: bool = False,
    ) -> None:
        super().__init__()
        self.network: nn.Module | None = network
        self.model = model
        self.name, self._say, self._asked, self._proven = name, say, asked, False

    def forward(self, images: Tensor) -> Tensor:
        if self.network is None:
            return _logits(self.model, images)
        if self._proven:
            return _logits(self.network, images)
        try:
            logits = _logits(self.network, images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler or a library raises, the job can run eager
            why = f"{self.name} failed ({reason(error)})"
            if self._asked:
                raise UserError(f"--execution: {why}; {_LEAVE_OUT}", exit_code=RUN_FAILED) from None
            self._say(f"execution: {why}; running eager")
            self.network = None
            return _logits(self.model, images)
        self._proven = True
        return logits


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits
