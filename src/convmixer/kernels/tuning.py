"""The forms of the fused network's passes that are fastest on this machine, each timed by itself and checked first.

Imported only where Triton is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from convmixer.arch import Architecture
from convmixer.errors import first_line
from convmixer.kernels.plan import Plan
from convmixer.kernels.timing import Call, milliseconds
from convmixer.kernels.tuning_passes import Maps, Pass, Tensors

logger = logging.getLogger(__name__)

TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 1e-4}
"""Of the largest value of a result: two forms round a 16-bit value once or twice each, and sum in another order."""

_GAIN = 0.98  # a form is left for one that takes less than this part of its time: what is less is noise
_VALUES = 1 << 27  # of a map: far more than any cache holds, and little beside the memory of a GPU
_MEMORY = 0.8  # part of a GPU's memory that maps kept for the backward pass may take

Timer = Callable[[Sequence[Call]], Sequence[float]]


def tuned_plan(
    arch: Architecture,
    batch: int,
    image_size: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    training: bool,
    recompute: bool = False,
    seconds: float = 120.0,
    say: Callable[[str], None] = logger.info,
    timer: Timer | None = None,
) -> Plan:
    """The plan for batches of so many images, [in_chans, image_size, image_size] each, whose maps are of `dtype`.

    A pass after the other, each with the forms chosen before it. A form that raises, or whose results are not the
    default's on fresh random inputs, is left out, which `say` reports, as it does each choice. No form is begun after
    `seconds`; what was not timed, or failed then, stays at its default. The mixed map is kept only where the memory of
    the device has room. `timer` gives the time of each of some calls, in any unit; by default `timing.milliseconds`.
    """
    deadline = time.monotonic() + seconds
    keep = ["inputs"] if recompute else ["halves"]
    if training and not recompute and _has_room(arch, batch, image_size, dtype, device):
        keep.append("mixed")
    tuner = _Tuner(dtype, deadline, say, timer or partial(milliseconds, device=device))
    plan = Plan(keep="inputs") if recompute else Plan()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, enabled=False):
        maps = Maps(arch, min(batch, _max_images(arch, image_size)), image_size, dtype, device)
        for tried in maps.passes(training=training, may_keep=keep):
            plan = tuner.choose(tried, plan)
    del maps, tried
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if plan.products == "library":
        plan = replace(plan, pointwise=None, pointwise_grad=None)
    return plan


@dataclass
class _Tuner:
    dtype: torch.dtype
    deadline: float
    say: Callable[[str], None]
    timer: Timer

    def choose(self, tried: Pass, plan: Plan) -> Plan:
        """`plan` with the pass's fastest form, or as it is."""
        now = replace(plan, **tried.base)
        plans = [now, *(one for change in tried.choices if (one := replace(now, **change)) != now)]
        correct: list[Plan] = []
        expected: Tensors | None = None
        for one in dict.fromkeys(plans):
            if time.monotonic() > self.deadline:
                self.say(f"kernels: no time is left to try {tried.name} {_difference(one, now)}")
                break
            try:
                # The default form is what the others are checked against.
                expected = tried.run(Plan(keep=plan.keep)) if expected is None else expected
                reason = _mismatch(tried.run(one), expected, self.dtype)
            except Exception as error:  # whatever a compiler or a driver raises, there are other forms
                reason = first_line(error)
            if reason is None:
                correct.append(one)
            else:
                self.say(f"kernels: {tried.name} {_difference(one, now)} is left out: {reason}")
        del expected
        if not correct:
            return plan
        try:
            times = dict(zip(correct, self.timer([partial(tried.run, one) for one in correct]), strict=True))
        except Exception as error:  # out of memory, most likely; what was chosen before holds
            self.say(f"kernels: {tried.name} is not timed: {first_line(error)}")
            return plan
        best = min(correct, key=times.__getitem__)
        if now in times and times[best] > _GAIN * times[now]:
            best = now
        timings = ", ".join(f"{_difference(one, now)} {took:.3f}" for one, took in times.items())
        self.say(f"kernels: {tried.name}, ms: {timings}: {_difference(best, now)}")
        changed = {name for change in tried.choices for name in change}
        return replace(plan, **{name: getattr(best, name) for name in changed})


def _mismatch(found: Tensors, expected: Tensors, dtype: torch.dtype) -> str | None:
    """Why results are not to be used; None where they are those expected."""
    for index, (result, reference) in enumerate(zip(found, expected, strict=True)):
        if result.shape != reference.shape or result.dtype != reference.dtype:
            expected_form = f"{list(reference.shape)} of {reference.dtype}"
            return f"result {index} is {list(result.shape)} of {result.dtype}, not {expected_form}"
        error = ((result.float() - reference.float()).abs().max() / reference.abs().max().float()).item()
        if not error <= TOLERANCE[dtype]:  # NaN too
            return f"result {index} is off by {error:.1e} of its largest value"
    return None


def _difference(plan: Plan, base: Plan) -> str:
    """The words of a plan that the other has not, for a line of the log."""
    known = str(base).split()
    return " ".join(word for word in str(plan).split() if word not in known) or "as it is"


def _max_images(arch: Architecture, image_size: int) -> int:
    """As many as make a map of `_VALUES`, in whole groups of 64."""
    images = _VALUES // (arch.dim * (image_size // arch.patch_size) ** 2)
    return max(1, images if images < 64 else images // 64 * 64)


def _has_room(arch: Architecture, batch: int, image_size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether three maps per block, and a dozen that a step needs once, fit a GPU's memory; elsewhere they do."""
    if device.type != "cuda":
        return True
    values = arch.dim * batch * (image_size // arch.patch_size) ** 2
    return (3 * arch.depth + 12) * values * dtype.itemsize <= _MEMORY * torch.cuda.mem_get_info(device)[1]
