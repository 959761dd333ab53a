"""Times backends on a workload and checks their answers against eager fp32, on fresh random images.

The check is on the first two blocks: all are run alike, and in a deep network that is not trained yet rounding grows
beyond meaning (in bf16 the gradients of a new 768/32 have nothing in common with those in fp32, whatever runs it).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convmixer.backends.autotune.trial import random_batch, release, wait
from convmixer.backends.registry import Backend
from convmixer.backends.workload import Workload
from convmixer.errors import first_line
from convmixer.model import ConvMixer

# Relative distance to eager fp32 that logits, and a parameter's gradient, may have in any case. Beyond, a backend may
# be three times as far from fp32 as plain eager is in the workload's own precision. Gradients of biases before a
# BatchNorm are sums that nearly cancel, and with ReLU, where rounding moves values across 0, up to 7e-3 off in fp32
# itself (eager in two layouts).
LOGITS_FLOOR = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
GRADIENT_FLOOR = {torch.float32: 2e-2, torch.bfloat16: 1e-1, torch.float16: 5e-2}
SLACK = 3.0
CHECKED_BLOCKS = 2
# Of the timing: the minimum of rounds, whatever time they take, and the maximum; and how many times the fastest one's
# best time a backend's best may be, to be timed on.
MIN_ROUNDS, MAX_ROUNDS = 3, 9
MAX_RATIO = 1.5


@dataclass(frozen=True)
class Timing:
    """Of a backend: seconds per image and seconds of building it; or why it cannot be used (one line).

    The minimum of some rounds: others on the machine make a round slower, never faster, and not each one alike.
    """

    image_seconds: float = math.inf
    build_seconds: float = 0.0
    failure: str | None = None

    def total(self, images: int) -> float:
        """Seconds of a workload of so many images."""
        return self.build_seconds + images * self.image_seconds


def benchmark(
    backends: Sequence[Backend], model: ConvMixer, workload: Workload, seconds: float, deadline: float = math.inf
) -> dict[str, Timing]:
    """Time `backends`, of which the first is plain eager, interleaved and for about `seconds` besides their building.

    By their full names; a backend that would be begun after `deadline`, of time.monotonic(), is not among them. Each
    runs on a copy of the model, whose weights and statistics stay as they are. Those that hold memory are timed after
    the others, each alone, so that a backend has the device's memory as it would in the workload. One that runs out of
    it has failed like one that fails otherwise. Raises torch.OutOfMemoryError where not even the check fits.
    """
    check, trial = Check(model, workload, backends[0]), _Trial(model, workload)
    together = [backend for backend in backends if not backend.holds_memory]
    timings: dict[str, Timing] = {}
    for group in (together, *([backend] for backend in backends if backend.holds_memory)):
        timings |= _measure_group(group, check, trial, seconds * len(group) / len(backends), deadline)
        release(workload.device)
    return timings


def _measure_group(
    backends: Sequence[Backend], check: Check, trial: _Trial, seconds: float, deadline: float
) -> dict[str, Timing]:
    timings: dict[str, Timing] = {}
    steps: dict[str, Callable[[], list[Tensor]]] = {}
    for backend in backends:
        if time.monotonic() > deadline:
            break
        try:
            failure = check.mismatch(backend)
            release(trial.workload.device)
            start = time.perf_counter()
            step = trial.step(backend)
            finite = all(bool(tensor.isfinite().all()) for tensor in step())
            wait(trial.workload.device)
        except Exception as error:  # whatever a compiler or a library raises, another backend can run the workload
            timings[backend.full_name] = Timing(failure=reason(error))
            continue
        if failure is None and not finite:
            failure = "its answer is not finite"
        timings[backend.full_name] = Timing(build_seconds=time.perf_counter() - start, failure=failure)
        if failure is None:
            steps[backend.full_name] = step
    return timings | _interleaved(steps, timings, trial.workload, seconds)


def _interleaved(
    steps: dict[str, Callable[[], list[Tensor]]], timings: dict[str, Timing], workload: Workload, seconds: float
) -> dict[str, Timing]:
    taken: dict[str, list[float]] = {name: [] for name in steps}
    failed: dict[str, Timing] = {}
    going = list(steps)
    end = time.perf_counter() + seconds
    for count in range(MAX_ROUNDS):
        for name in [name for name in going if name not in failed]:
            try:
                start = time.perf_counter()
                steps[name]()
                wait(workload.device)
            except Exception as error:
                failed[name] = Timing(failure=reason(error))
            taken[name].append(time.perf_counter() - start)
        if count + 1 >= MIN_ROUNDS and time.perf_counter() > end:
            break
        if count > 0:  # in one round alone a backend may have been disturbed
            going = _contenders({name: times for name, times in taken.items() if name not in failed})
    measured = {
        name: replace(timings[name], image_seconds=min(times) / workload.batch_size) for name, times in taken.items()
    }
    return measured | failed


def _contenders(taken: dict[str, list[float]]) -> list[str]:
    """Those that may still be the fastest: the time goes to them, not to what is far behind."""
    fastest = min((min(times) for times in taken.values()), default=0.0)
    return [name for name, times in taken.items() if min(times) < MAX_RATIO * fastest]


class _Trial:
    """Images, random ones where none are given, and labels of a workload."""

    def __init__(self, model: ConvMixer, workload: Workload, images: Tensor | None = None) -> None:
        self.model, self.workload = model, workload
        self.images, self.labels = random_batch(workload)
        if images is not None:
            self.images = images.to(workload.device)

    def copy(self) -> ConvMixer:
        """The model, for a backend to change its layout and its statistics."""
        return copy.deepcopy(self.model).train(self.workload.training)

    def step(self, backend: Backend) -> Callable[[], list[Tensor]]:
        """A pass of the backend: builds its network now; gives logits, and for training each parameter's gradient."""
        network = backend.network(self.copy(), self.workload).train(self.workload.training)
        return lambda: _answer(network, self.workload, self.images, self.labels)


class Check(_Trial):
    """The right answer of the first blocks, and how far from it plain eager is in the workload's precision."""

    def __init__(self, model: ConvMixer, workload: Workload, eager: Backend, images: Tensor | None = None) -> None:
        arch = replace(workload.arch, depth=min(workload.arch.depth, CHECKED_BLOCKS))
        first = copy.deepcopy(model)
        first.arch, first.blocks = arch, first.blocks[: arch.depth]
        super().__init__(first, replace(workload, arch=arch), images)
        with exact_fp32(workload):
            self.reference = _answer(self.copy(), replace(self.workload, dtype=torch.float32), self.images, self.labels)
        dtype, errors = workload.dtype, self.errors(eager)
        floors = [LOGITS_FLOOR[dtype]] + [GRADIENT_FLOOR[dtype]] * (len(errors) - 1)
        self.limits = [max(floor, SLACK * error) for floor, error in zip(floors, errors, strict=True)]

    def errors(self, backend: Backend) -> list[float]:
        """Relative distances of the logits, and for training of each parameter's gradient, to the right answer."""
        answer = self.step(backend)()
        return [relative_error(one, other) for one, other in zip(answer, self.reference, strict=True)]

    def mismatch(self, backend: Backend) -> str | None:
        """Why the backend's answer is wrong, None where it is right."""
        for index, (error, limit) in enumerate(zip(self.errors(backend), self.limits, strict=True)):
            if not error <= limit:  # also where it is not a number
                what = "logits" if index == 0 else "gradients"
                return f"its {what} are {error:.1e} off, {limit:.1e} is allowed"
        return None


def relative_error(answer: Tensor, reference: Tensor) -> float:
    """Norm of the difference as a fraction of the reference's."""
    reference = reference.double()
    return float((answer.double() - reference).norm() / reference.norm().clamp_min(1e-30))


def _answer(network: nn.Module, workload: Workload, images: Tensor, labels: Tensor) -> list[Tensor]:
    if not workload.training:
        with torch.inference_mode(), workload.autocast():
            return [network(images)]
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with workload.autocast():
        logits = network(images)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    return [logits.detach(), *torch.autograd.grad(loss, parameters)]


@contextmanager
def exact_fp32(workload: Workload) -> Iterator[None]:
    """fp32 without TF32, which a CUDA GPU's convolutions take by default."""
    if workload.device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def reason(error: Exception) -> str:
    """An error in one short line."""
    name, line = type(error).__name__, first_line(error, 120)
    return name if line == name else f"{name}: {line}"
