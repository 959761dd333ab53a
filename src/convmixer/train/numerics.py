"""Non-finite numbers: caught before they reach the weights, and traced to the layer that they come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convmixer.errors import RUN_FAILED, UserError


class NonFinite(UserError):
    """A loss or gradient norm that is no number; raised before the update, with what tells where it came from."""

    def __init__(self, step: int, loss: float, grad_norm: float, indices: list[int]) -> None:
        super().__init__(
            f"step {step}: loss {loss:g}, gradient norm {grad_norm:g}; stopped before the update, "
            "the last checkpoint is untouched; lower --base_lr, set --use_clip_grad_norm, or look with --debug_nan",
            exit_code=RUN_FAILED,
        )
        self.step, self.loss, self.grad_norm, self.indices = step, loss, grad_norm, indices


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
            return f"backward: {str(error).splitlines()[0]}"
    bad = first_non_finite({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    return None if bad is None else f"backward: gradient of {bad}"


def dump(path: Path, error: NonFinite, names: Iterable[str], where: str | None) -> None:
    """Write what is known of a non-finite step as JSON."""
    record = {
        "step": error.step,
        "loss": str(error.loss),
        "grad_norm": str(error.grad_norm),
        "indices": error.indices,
        "images": list(names),
        "where": where,
    }
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
