"""Which backend runs a workload: the one asked for, or the fastest of those measured with the right answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from convmixer.backends.autotune import cache
from convmixer.backends.autotune.benchmark import Timing, benchmark
from convmixer.backends.autotune.fallback import LEAVE_OUT, Attempts, WithFallback
from convmixer.backends.autotune.kernel_plans import find_plan
from convmixer.backends.registry import Backend, BackendKind, backends_for, evaluation_backends, find_backend
from convmixer.backends.workload import Workload
from convmixer.errors import RUN_FAILED, UserError
from convmixer.model import ConvMixer

if TYPE_CHECKING:  # a backend needs no options, nor what checks them
    from convmixer.config.execution import Execution

logger = logging.getLogger(__name__)

Say = Callable[[str], None]

# Seconds that a workload must take (nominally) for the backends to be timed, and for torch.compile, which itself needs
# a minute or two, to be among them; seconds that the timing itself may take, and after which no further backend is
# begun, whatever the building of those before has taken.
OUTLASTS = 60.0
OUTLASTS_COMPILE = 1200.0
TUNING_SECONDS = 10.0
TUNING_LIMIT = 300.0


# What a kind of backend needs.
_NEEDS: dict[BackendKind, str] = {
    "eager": "",
    "compile": "a C++ compiler on a CPU, and on a GPU the package triton",
    "fused": "an odd kernel size, on a CPU fp32 or bf16, and on a GPU the package triton, a side up to 9 and compute "
    "capability 8.0",
    "openvino": "inference on a CPU in fp32, or in bf16 where the processor has it: pip install 'convmixer[openvino]'",
}


def choose_network(
    model: ConvMixer, workload: Workload, images: int, execution: Execution = "auto", say: Say = logger.info
) -> nn.Module:
    """The network that runs `model` on a workload of so many images, and a line that says which backend it is.

    Short workloads under `auto` run eager, without a measurement and without a line. A backend that fails, now or at
    its first call, is left for its fallback and for plain eager, with a line that says why. In place of one that was
    asked for by name only those of its kind are taken: else that is a UserError.
    """
    return build_network(choose_backend(model, workload, images, execution, say), model, workload, execution, say)


def build_network(
    name: str, model: ConvMixer, workload: Workload, execution: Execution = "auto", say: Say = logger.info
) -> nn.Module:
    """The network of the backend that `choose_backend` named.

    Raises UserError where one that was asked for cannot be built, and at its first call where that fails (exit 1).
    """
    network = WithFallback(attempts(name, workload, execution, say), model)
    return network.network if network.backend.kind == "eager" else network


def attempts(name: str, workload: Workload, execution: Execution = "auto", say: Say = logger.info) -> Attempts:
    """The backend that `choose_backend` named, and what is tried where it fails."""
    backends = backends_for(workload)
    backend = find_backend(name, backends, workload)
    assert backend is not None
    return Attempts(backend, backends, workload, say, is_required=execution != "auto", subject="execution")


def requested_backends(workload: Workload, execution: Execution) -> list[Backend]:
    """The backends of a workload that `execution` allows, plain eager first.

    Raises UserError where it names what is not there.
    """
    backends = backends_for(workload)
    candidates = [backend for backend in backends if execution in ("auto", backend.kind)]
    if not candidates:
        what = f"{'training' if workload.training else 'inference'} of this network on {workload.device.type}"
        assert execution != "auto"
        if workload.drop_path:
            raise UserError(f"--drop_path: runs eager only, not {execution}; leave --execution out")
        raise UserError(
            f"--execution: there is nothing {execution} for {what}{_in_16_bits(workload)}; it needs {_NEEDS[execution]}"
        )
    return candidates


def choose_backend(
    model: ConvMixer, workload: Workload, images: int, execution: Execution = "auto", say: Say = logger.info
) -> str:
    """Full name of the backend to take. `images` 0: without measuring. Raises UserError as `requested_backends`."""
    default = backends_for(workload)[0]
    candidates = requested_backends(workload, execution)
    if execution == "eager":
        return default.full_name
    seconds = workload.nominal_seconds(images)
    if seconds < OUTLASTS or (len(candidates) == 1 and not candidates[0].takes_plan):
        if execution != "auto":
            say(f"execution: {candidates[0].full_name}{_in_16_bits(workload)}, as asked for")
        return candidates[0].full_name
    if execution == "auto" and seconds < OUTLASTS_COMPILE:
        candidates = [backend for backend in candidates if backend.kind != "compile"]
    candidates, timings = _benchmarked(default, candidates, model, workload, say)
    usable = _usable(candidates, timings)
    first = timings.get(candidates[0].full_name)
    if not usable and execution != "auto" and first is not None and timings[default.full_name].failure is None:
        raise UserError(
            f"--execution: {candidates[0].full_name} failed ({first.failure}); {LEAVE_OUT}", exit_code=RUN_FAILED
        )
    usable = usable or [candidates[0].full_name]
    best = min(usable, key=lambda name: timings[name].total(images) if name in timings else 0.0)
    say(f"execution: {best}{_in_16_bits(workload)}{_speed(best, default, timings)}")
    if workload.device.type == "cpu" and workload.dtype == torch.float32 and has_bf16_units():
        say("execution: this processor has matrix units for bf16; --amp_level O1 uses them")
    return best


def choose_evaluation_backend(
    model: ConvMixer, workload: Workload, images: int, times: int, execution: Execution = "auto", say: Say = logger.info
) -> str:
    """Full name of the backend by which a training run evaluates `images` images `times` times, with new weights each.

    What holds for the training holds here where there is a backend of its kind, else plain eager.
    """
    plain, *fused = evaluation_backends(workload)
    if execution not in ("auto", "fused") or not fused:
        return plain.full_name
    if workload.nominal_seconds(images * times) < OUTLASTS:
        return (fused[0] if execution == "fused" else plain).full_name
    planned, timings = _benchmarked(plain, fused if execution == "fused" else [plain, *fused], model, workload, say)
    builds = {backend.full_name: times if backend.copies or backend.holds_memory else 1 for backend in planned}

    def seconds(name: str) -> float:
        return builds[name] * timings[name].build_seconds + times * images * timings[name].image_seconds

    best = min(_usable(planned, timings), key=seconds, default=plain.full_name)
    say(f"evaluation: {best}{_in_16_bits(workload)}{_speed(best, plain, timings)}")
    return best


def evaluation_network(name: str, model: ConvMixer, workload: Workload, say: Say = logger.info) -> WithFallback:
    """A network of the model with the weights that it has now, for one evaluation of a training run.

    Where the backend fails, out of memory included, the evaluation runs eager: the training is not to end by it.
    """
    backends = evaluation_backends(workload)
    chosen = find_backend(name, backends, workload) or backends[0]
    return WithFallback(
        Attempts(chosen, backends, workload, say, is_required=False, subject="evaluation"),
        model,
        catch_out_of_memory=True,
    )


def has_bf16_units() -> bool:
    """Whether the processor multiplies bf16 matrices as such (Intel's AMX)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def _in_16_bits(workload: Workload) -> str:
    return {torch.bfloat16: " in bf16", torch.float16: " in fp16"}.get(workload.dtype, "")


def _benchmarked(
    default: Backend, candidates: Sequence[Backend], model: ConvMixer, workload: Workload, say: Say
) -> tuple[list[Backend], dict[str, Timing]]:
    """The `candidates` with the plan that suits the workload, and what was measured of them and of `default`, eager.

    Nothing is known of a backend that is not among the timings: the time was over, or the check did not fit.
    """
    tuned = workload.for_tuning(TUNING_SECONDS / 10)
    plan = cache.load_plan(tuned)
    if plan is None and any(backend.takes_plan for backend in candidates):
        plan = find_plan(tuned, say)
    candidates = [backend.planned(workload, plan or "") for backend in candidates]
    backends = [default, *(backend for backend in candidates if backend.full_name != default.full_name)]
    timings = cache.load(tuned)
    if all(backend.full_name in timings for backend in backends):
        return candidates, timings
    say(f"execution: timing {len(backends)} backends")
    try:
        timings |= benchmark(backends, model, tuned, TUNING_SECONDS, time.monotonic() + TUNING_LIMIT)
    except torch.OutOfMemoryError:
        say("execution: not measured, the check in fp32 does not fit into the device's memory")
        return candidates, {}
    cache.save(tuned, timings, plan)
    for backend in backends:
        timing = timings.get(backend.full_name)
        if timing is None:
            say(f"execution: not measured, {TUNING_LIMIT:g} s were over: {backend.full_name}")
        elif timing.failure is not None:
            say(f"execution: not {backend.full_name}: {timing.failure}")
    return candidates, timings


def _usable(backends: Sequence[Backend], timings: dict[str, Timing]) -> list[str]:
    """Names of those that were measured and found right."""
    names = [backend.full_name for backend in backends]
    return [name for name in names if name in timings and timings[name].failure is None]


def _speed(name: str, default: Backend, timings: dict[str, Timing]) -> str:
    timing, eager = timings.get(name), timings.get(default.full_name)
    if timing is None or timing.failure is not None:
        return ""
    compared = eager is not None and timing != eager and eager.failure is None
    ratio = f", {eager.image_seconds / timing.image_seconds:.1f} times eager" if eager is not None and compared else ""
    return f"{ratio} ({1 / timing.image_seconds:.4g} img/s)"
