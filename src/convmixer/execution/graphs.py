"""A pass of the network as a CUDA graph: all its kernels are started at once, instead of one by one from Python.

A fused block has nine large kernels and some 25 small ones on a value a channel, which take longer to start than to
run; a small network consists of nothing else. A graph has fixed shapes and fixed memory: it is recorded at the first
batch of the job's size, and holds the memory of a whole pass from then on. Parameters and buffers are read and written
where they lay when it was recorded, so that updates in place are seen, and replacing them is not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from convmixer.execution.batches import in_batches
from convmixer.execution.function import FunctionOfModel
from convmixer.execution.job import Job
from convmixer.execution.trial import kept
from convmixer.model import ConvMixer


class GraphedConvMixer(nn.Module):
    """`function(model, images)` as a graph, for training one of the forward and one of the backward pass.

    Where it does not apply, the function itself runs: in training for batches of another shape than the job's, in
    evaluation for images of another size (batches are split and filled up), and in the other mode than the job's. In
    training each forward pass must be followed by its backward pass before the next one. Raises what torch raises
    where a pass cannot be recorded; the model is then as it was.
    """

    def __init__(self, model: ConvMixer, function: Callable[[ConvMixer, Tensor], Tensor], job: Job) -> None:
        super().__init__()
        self.model, self._function = model, function
        self._training, self._shape = job.training, (job.batch_size, job.arch.in_chans, job.image_size, job.image_size)
        self._graph: Callable[..., Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, in_chans, height, width] -> logits [N, num_classes]."""
        fits = images.shape == self._shape if self._training else images.shape[1:] == self._shape[1:]
        if not fits or self.model.training != self._training or torch.is_grad_enabled() != self._training:
            return self._function(self.model, images)
        if self._training:
            return self._replay(images).clone()
        return in_batches(self._replay, images, self._shape[0])

    def _replay(self, images: Tensor) -> Tensor:
        """The logits lie in memory that the next call writes to."""
        if self._graph is None:
            self._graph = self._record(images)
        parameters = self._leaves().values()
        # Only now: autograd's nodes over parameters belong to the stream on which they were made.
        return self._graph(images, *(_Apart.apply(*parameters) if parameters else ()))

    def _leaves(self) -> dict[str, nn.Parameter]:
        """Those that the graph gives gradients of."""
        trained = self._training
        return {name: p for name, p in self.model.named_parameters() if trained and p.requires_grad}

    def _record(self, images: Tensor) -> Callable[..., Tensor]:
        with torch.inference_mode(False):
            # Not an inference tensor, to which only inference mode may write.
            static = torch.empty_like(images)
        static.copy_(images)
        # Leaves of its own over the same memory. A parameter's node that something keeps alive belongs to another
        # stream, which recording refuses; and those of the recorded pass live as long as the graph does, so that each
        # gradient of a replay would change streams.
        leaves = {f"model.{name}": parameter.detach().requires_grad_() for name, parameter in self._leaves().items()}
        call = FunctionOfModel(self.model, self._function)

        def run(images: Tensor, *_: Tensor) -> Tensor:
            logits: Tensor = functional_call(call, leaves, (images,))
            return logits

        kind = images.device.type
        autocast = torch.autocast(
            kind,
            dtype=torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            # The casts of the weights must be in the graph, not remembered from before it.
            cache_enabled=False,
        )
        # A recording that fails may leave its stream the current one; this context puts back ours.
        stream = torch.cuda.current_stream(images.device) if images.is_cuda else None
        with torch.cuda.stream(stream), kept(self.model), autocast:
            return _graphed(run, (static, *leaves.values()))


def _graphed(run: Callable[..., Tensor], sample: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """`torch.cuda.make_graphed_callables`, where other threads go on meanwhile, as that which pins the next batch."""
    mode = {"capture_error_mode": "thread_local"}
    make: Any = torch.cuda.make_graphed_callables
    recorded: Callable[..., Tensor]
    if "capture_error_mode" in inspect.signature(make).parameters:
        recorded = make(run, sample, **mode)
        return recorded
    # torch 2.11 leaves it to the default of what it records with. It also warms up on a stream of its own and warns
    # that nodes of autograd over the leaves are left of that; no graph is the worse for it.
    capture = torch.cuda.graph
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    torch.cuda.graph = partial(capture, **mode)  # type: ignore[misc, assignment]
    try:
        recorded = make(run, sample)
    finally:
        torch.cuda.graph = capture  # type: ignore[misc]
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
    return recorded


class _Apart(torch.autograd.Function):
    """Parameters as they are; their gradients as copies.

    A graph leaves its gradients in the same memory each time. autograd takes the first one over as `.grad` without a
    copy, and the next micro-batch would write over what has been accumulated.
    """

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        copies = [torch.empty_like(grad) for grad in grads]
        torch._foreach_copy_(copies, list(grads))
        return tuple(copies)
