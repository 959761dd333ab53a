"""Non-finite numbers: caught before they reach the weights, and traced to the layer that they come from."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convmixer.errors import RUN_FAILED, UserError, first_line

if TYPE_CHECKING:
    from convmixer.training.loading.train_batch import TrainBatch


class NonFinite(UserError):
    """A loss or gradient norm of step `step` that is no number; its update was not made. `batches`: its images."""

    def __init__(self, step: int, loss: float, grad_norm: float, batches: Sequence[TrainBatch]) -> None:
        super().__init__(
            f"step {step}: loss {loss:g}, gradient norm {grad_norm:g}; stopped before the update, "
            "the last checkpoint is untouched; lower --base_lr, set --use_clip_grad_norm, or look with --debug_nan",
            exit_code=RUN_FAILED,
        )
        self.step, self.loss, self.grad_norm, self.batches = step, loss, grad_norm, list(batches)
        self.indices = [int(index) for batch in batches for index in batch.indices]


@dataclass(frozen=True)
class _Pending:
    """A step that was launched: its loss and gradient norm on their way to the host, [2], and the event of arrival."""

    step: int
    numbers: torch.Tensor
    arrival: torch.cuda.Event | None
    batches: Sequence[TrainBatch]


class FiniteCheck:
    """Checks each step's loss and gradient norm before the update, and raises NonFinite where one is no number.

    * At once: waits for the device and raises, so that the update is never launched.
    * `deferred`: nothing waits. The check stays on the device as a flag, 0 or 1 in fp32, which is 1 from the first bad
      step on: it has the optimizer (`found_inf`, which it must honour) and the average leave out that step's update
      and every later one. The host learns of a step from `check_pending`, which the caller calls when it has launched
      the next step, and before anything of the state is saved, evaluated or shown.
    """

    def __init__(self, deferred: bool) -> None:
        self.deferred = deferred
        self._flag: torch.Tensor | None = None
        self._pending: deque[_Pending] = deque()
        self._free: list[torch.Tensor] = []

    def __call__(
        self, step: int, loss: torch.Tensor, grad_norm: torch.Tensor, batches: Sequence[TrainBatch]
    ) -> torch.Tensor | None:
        """`loss` and `grad_norm`, scalars, of a step. Deferred, it returns the flag; at once None, or it raises."""
        numbers = torch.stack((loss.detach().float(), grad_norm.detach().float()))
        if not self.deferred:
            _raise_if_non_finite(step, numbers, batches)
            return None
        bad = numbers.isfinite().all().logical_not().float()
        self._flag = bad if self._flag is None else torch.maximum(self._flag, bad)
        host = self._free.pop() if self._free else torch.empty(2, pin_memory=numbers.is_cuda)
        host.copy_(numbers, non_blocking=True)
        self._pending.append(_Pending(step, host, _arrival(numbers), batches))
        return self._flag

    def check_pending(self, leave: int = 0) -> None:
        """Wait for the numbers of all steps but the last `leave` ones. Raises NonFinite for the first that is bad."""
        while len(self._pending) > leave:
            one = self._pending.popleft()
            if one.arrival is not None:
                one.arrival.synchronize()
            _raise_if_non_finite(one.step, one.numbers, one.batches)
            self._free.append(one.numbers)


def _arrival(copied: torch.Tensor) -> torch.cuda.Event | None:
    """The event after the copies of a tensor that are under way: on its own device's stream, which made them."""
    if not copied.is_cuda:
        return None
    event = torch.cuda.Event(blocking=True)
    event.record(torch.cuda.current_stream(copied.device))
    return event


def _raise_if_non_finite(step: int, numbers: torch.Tensor, batches: Sequence[TrainBatch]) -> None:
    loss, grad_norm = numbers.tolist()
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise NonFinite(step, loss, grad_norm, batches)


def first_non_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity, or None. Waits for the device once."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats:
        return None
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in floats.values()]).tolist()
    return next((name for name, good in zip(floats, finite, strict=True) if not good), None)


@contextmanager
def naming_layers(model: nn.Module) -> Iterator[list[str]]:
    """Within the context, the modules whose output was the first to be non-finite are appended to the list."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not found and not bool(torch.isfinite(output).all()):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    leaves = ((name, module) for name, module in model.named_modules() if not list(module.children()))
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, run: Callable[[], torch.Tensor]) -> str | None:
    """Run a forward and backward pass and say where its first non-finite number comes from; None when all are finite.

    `run` returns the loss. Gradients are left behind: the caller is about to stop.
    """
    with naming_layers(model) as layers, torch.autograd.set_detect_anomaly(True):
        try:
            loss = run()
            if layers:
                return f"forward: first non-finite output at {layers[0]}"
            if not bool(torch.isfinite(loss)):
                return "forward: the loss itself, with finite logits"
            loss.backward()
        except RuntimeError as error:
            return f"backward: {first_line(error)}"
    bad = first_non_finite({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    return None if bad is None else f"backward: gradient of {bad}"


def described(error: NonFinite, names: Iterable[str], where: str | None) -> str:
    """What is known of a non-finite step, as JSON."""
    record = {
        "step": error.step,
        "loss": str(error.loss),
        "grad_norm": str(error.grad_norm),
        "indices": error.indices,
        "images": list(names),
        "where": where,
    }
    return json.dumps(record, indent=1)
