"""Times ways on a job and checks what they answer against eager fp32, on fresh random images."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convmixer.execution.job import Job
from convmixer.execution.ways import Way
from convmixer.model import ConvMixer

# Relative distance to eager fp32 that logits, and a parameter's gradient, may have in any case. Beyond, a way may be
# three times as far from fp32 as plain eager is in the job's own precision. fp32 in another order of sums leaves the
# logits of 32 blocks 1.5e-4 off, and the gradients of biases before a BatchNorm, sums that nearly cancel, up to 1e-3.
LOGITS_FLOOR = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 2e-3}
GRADIENT_FLOOR = {torch.float32: 1e-2, torch.bfloat16: 1e-1, torch.float16: 5e-2}
SLACK = 3.0
ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Of a way: median seconds of an image and seconds of building it; or why it cannot be used (one line)."""

    image_seconds: float = math.inf
    build_seconds: float = 0.0
    failure: str | None = None

    def total(self, images: int) -> float:
        """Seconds of a job of so many images."""
        return self.build_seconds + images * self.image_seconds


def measure(ways: Sequence[Way], model: ConvMixer, job: Job, seconds: float) -> dict[str, Timing]:
    """Time `ways`, of which the first is plain eager, interleaved and for about `seconds` besides their building.

    Each runs on a copy of the model, whose weights and statistics stay as they are.
    """
    trial = _Trial(model, job)
    timings: dict[str, Timing] = {}
    steps: dict[str, Callable[[], object]] = {}
    for way in ways:
        start = time.perf_counter()
        try:
            step = trial.step(way)
            answer = step()
            _wait(job)
        except Exception as error:  # whatever a compiler or a library raises, the job can run another way
            timings[way.name] = Timing(failure=reason(error))
            continue
        timings[way.name] = Timing(build_seconds=time.perf_counter() - start, failure=trial.fault(answer))
        if timings[way.name].failure is None:
            steps[way.name] = step
    return timings | _interleaved(steps, timings, job, seconds)


def _interleaved(
    steps: dict[str, Callable[[], object]], timings: dict[str, Timing], job: Job, seconds: float
) -> dict[str, Timing]:
    taken: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            _wait(job)
            taken[name].append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return {
        name: replace(timings[name], image_seconds=statistics.median(times) / job.batch_size)
        for name, times in taken.items()
    }


class _Trial:
    """Images, labels and the right answer of a job: logits, and for training the gradient of each parameter."""

    def __init__(self, model: ConvMixer, job: Job) -> None:
        self.model, self.job = model, job
        generator = torch.Generator().manual_seed(0)
        shape = (job.batch_size, job.arch.in_chans, job.image_size, job.image_size)
        self.images = torch.randn(shape, generator=generator).to(job.device)
        self.labels = torch.randint(job.arch.num_classes, (job.batch_size,), generator=generator).to(job.device)
        with _exact_fp32(job):
            self.right = _answers(self._copy(), replace(job, dtype=torch.float32), self.images, self.labels)
        self.limits: list[float] | None = None

    def _copy(self) -> ConvMixer:
        return copy.deepcopy(self.model).train(self.job.training)

    def step(self, way: Way) -> Callable[[], list[Tensor]]:
        """A pass of the way: builds its network now and answers at each call."""
        network = way.build(self._copy(), self.job).train(self.job.training)
        return lambda: _answers(network, self.job, self.images, self.labels)

    def fault(self, answer: Sequence[Tensor]) -> str | None:
        """Why an answer is wrong, None where it is right. The first, plain eager's, sets the measure."""
        errors = [relative_error(one, other) for one, other in zip(answer, self.right, strict=True)]
        if self.limits is None:
            dtype = self.job.dtype
            floors = [LOGITS_FLOOR[dtype]] + [GRADIENT_FLOOR[dtype]] * (len(errors) - 1)
            self.limits = [max(floor, SLACK * error) for floor, error in zip(floors, errors, strict=True)]
        for index, (error, limit) in enumerate(zip(errors, self.limits, strict=True)):
            if not error <= limit:  # also where it is not a number
                what = "logits" if index == 0 else "gradients"
                return f"its {what} are {error:.1e} off, {limit:.1e} is allowed"
        return None


def relative_error(answer: Tensor, right: Tensor) -> float:
    """Norm of the difference as a share of the right answer's."""
    right = right.double()
    return float((answer.double() - right).norm() / right.norm().clamp_min(1e-30))


def _answers(network: nn.Module, job: Job, images: Tensor, labels: Tensor) -> list[Tensor]:
    if not job.training:
        with torch.inference_mode(), job.autocast():
            return [network(images)]
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with job.autocast():
        logits = network(images)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    return [logits.detach(), *torch.autograd.grad(loss, parameters)]


@contextmanager
def _exact_fp32(job: Job) -> Iterator[None]:
    """fp32 without TF32, which a CUDA GPU's convolutions take by default."""
    if job.device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _wait(job: Job) -> None:
    if job.device.type == "cuda":
        torch.cuda.synchronize(job.device)


def reason(error: Exception) -> str:
    """An error in one short line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}".rstrip(": ")
