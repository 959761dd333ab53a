"""A pass of the network as a CUDA graph: all its kernels are started at once, instead of one by one from Python.

A fused block has nine large kernels and some 25 small ones on one value per channel, which take longer to start than to
run; a small network consists of nothing else. A graph has fixed shapes and fixed memory: it is recorded at the first
batch of the workload's size, and holds the memory of a whole pass from then on. Parameters and buffers are read and
written where they lay when it was recorded, so that updates in place are seen, and replacing them is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from convmixer.backends.autotune.trial import kept
from convmixer.backends.function import FunctionOfModel
from convmixer.backends.padding import in_batches
from convmixer.backends.workload import Workload
from convmixer.model import ConvMixer

WARM_UPS = 3


class GraphedConvMixer(nn.Module):
    """`function(model, images)` as a graph, for training one of the forward and one of the backward pass.

    Where it does not apply, the function itself runs: in training for batches of another shape than the workload's, in
    evaluation for images of another size (batches are split and filled up), and in the other mode than the workload's.
    In training each forward pass must be followed by its backward pass before the next one. Raises what torch raises
    where a pass cannot be recorded; the model is then as it was.
    """

    def __init__(self, model: ConvMixer, function: Callable[[ConvMixer, Tensor], Tensor], workload: Workload) -> None:
        super().__init__()
        self.model, self._function = model, function
        self._training, self._shape = (
            workload.training,
            (workload.batch_size, workload.arch.in_chans, workload.image_size, workload.image_size),
        )
        self._recording: Recording | None = None

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
        if self._recording is None:
            self._recording = self._record(images)
        # Only now: autograd's nodes over parameters belong to the stream on which they were made.
        logits: Tensor = _Replay.apply(self._recording, images, *self._leaves().values())
        return logits

    def _leaves(self) -> dict[str, nn.Parameter]:
        """Those that the graph gives gradients of."""
        trained = self._training
        return {name: p for name, p in self.model.named_parameters() if trained and p.requires_grad}

    def _record(self, images: Tensor) -> Recording:
        with torch.inference_mode(False):
            # Not an inference tensor, to which only inference mode may write.
            static = torch.empty_like(images)
        static.copy_(images)
        # Leaves of its own over the same memory. A parameter's node that something keeps alive belongs to another
        # stream, which recording refuses; and those of the recorded pass live as long as the graph does, so that each
        # gradient of a replay would change streams.
        leaves = {f"model.{name}": parameter.detach().requires_grad_() for name, parameter in self._leaves().items()}
        call = FunctionOfModel(self.model, self._function)

        def run(images: Tensor) -> Tensor:
            logits: Tensor = functional_call(call, leaves, (images,))
            return logits

        device_type = images.device.type
        autocast = torch.autocast(
            device_type,
            dtype=torch.get_autocast_dtype(device_type),
            enabled=torch.is_autocast_enabled(device_type),
            # The casts of the weights must be in the graph, not remembered from before it.
            cache_enabled=False,
        )
        # A recording that fails may leave its stream the current one; this context puts back ours.
        stream = torch.cuda.current_stream(images.device) if images.is_cuda else None
        with torch.cuda.stream(stream), kept(self.model), autocast:
            return recorded(run, static, list(leaves.values()))


@dataclass(frozen=True)
class Recording:
    """Graphs of a pass, the tensors that they read, `images` and `grad` (the logits'), and those that they write."""

    images: Tensor
    forward: torch.cuda.CUDAGraph
    logits: Tensor
    backward: torch.cuda.CUDAGraph
    grad: Tensor
    grads: Sequence[Tensor]


def recorded(run: Callable[[Tensor], Tensor], images: Tensor, leaves: Sequence[Tensor]) -> Recording:
    """`run(images)` as a graph, and where there are `leaves` another one of its backward pass to their gradients.

    As torch.cuda.make_graphed_callables does it, which in torch 2.11 has no means to let other threads go on meanwhile,
    such as that which pins the next batch. All on one stream, which the workspaces of libraries belong to.
    """
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # Kernels are compiled and loaded before, which recording forbids.
        for _ in range(WARM_UPS):
            logits = run(images)
            if leaves:
                torch.autograd.grad(logits, leaves, torch.zeros_like(logits))
            del logits
    torch.cuda.synchronize()
    capture = partial(_capture, pool=pool, stream=stream, capture_error_mode="thread_local")
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with capture(forward):
        logits = run(images)
    grad = torch.zeros_like(logits)
    grads: tuple[Tensor, ...] = ()
    if leaves:
        with capture(backward):
            grads = torch.autograd.grad(logits, leaves, grad)
    return Recording(images, forward, logits.detach(), backward, grad, grads)


@contextmanager
def _capture(graph: torch.cuda.CUDAGraph, **options: Any) -> Iterator[None]:
    """torch.cuda.graph; an error within it is raised as it is, not that the recording cannot be ended after one."""
    cause: Exception | None = None
    try:
        with torch.cuda.graph(graph, **options):
            try:
                yield
            except Exception as error:
                cause = error
                raise
    except Exception as error:
        raise cause or error from None


class _Replay(torch.autograd.Function):
    """The logits of a recording, and gradients of its parameters as copies.

    A graph leaves its gradients in the same memory each time. autograd takes the first one over as `.grad` without a
    copy, and the next micro-batch would write over what has been accumulated.
    """

    @staticmethod
    def forward(ctx: Any, recording: Recording, images: Tensor, *parameters: Tensor) -> Tensor:
        ctx.recording = recording
        recording.images.copy_(images)
        recording.forward.replay()
        return recording.logits.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        recording = ctx.recording
        recording.grad.copy_(grad)
        recording.backward.replay()
        copies = [torch.empty_like(one) for one in recording.grads]
        torch._foreach_copy_(copies, list(recording.grads))
        return None, None, *copies
