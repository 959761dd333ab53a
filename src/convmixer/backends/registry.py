"""The backends that run a ConvMixer, and to which workloads each applies."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from convmixer.backends.compiled import CompiledConvMixer, compile_applies
from convmixer.backends.function import FunctionOfModel
from convmixer.backends.workload import Workload
from convmixer.devices import memory_format
from convmixer.kernels.limits import reason_against
from convmixer.kernels.plan import Plan
from convmixer.model import ConvMixer

BackendKind = Literal["eager", "compile", "fused", "openvino"]


@dataclass(frozen=True)
class Backend:
    """`build(model, workload, plan)` makes a network that maps images to logits by the model's own parameters.

    It may change the memory layout of the model's parameters, never their names, shapes or values. `copies`: a network
    for inference holds a copy of the weights as they are when it is built. `holds_memory`: its network keeps the memory
    of a whole pass from its first call on. `fallback`: the name of the backend to try where this one fails, before
    plain eager. `takes_plan`: its passes have several forms, and `plan`, the text of a `kernels.plan.Plan`, names them.
    """

    name: str
    kind: BackendKind
    applies: Callable[[Workload], bool]
    build: Callable[[ConvMixer, Workload, str], nn.Module]
    holds_memory: bool = False
    copies: bool = False
    fallback: str | None = None
    takes_plan: bool = False
    plan: str = ""

    @property
    def full_name(self) -> str:
        """The name, and in brackets the plan where it is not the default one."""
        return f"{self.name} [{self.plan}]" if self.plan else self.name

    def network(self, model: ConvMixer, workload: Workload) -> nn.Module:
        """The backend's network of a model, which for training is told whether to recompute."""
        if workload.training:
            model.recompute = workload.recompute
        return self.build(model, workload, self.plan)

    def planned(self, workload: Workload, plan: str) -> Backend:
        """The backend with these forms, if it takes a plan; the workload decides what is kept for the backward pass.

        Raises ValueError for a text that is no plan.
        """
        if not self.takes_plan:
            return self
        forms = Plan.parse(plan)
        if (forms.keep == "inputs") != workload.recompute:
            forms = replace(forms, keep="inputs" if workload.recompute else Plan().keep)
        return replace(self, plan=str(forms))


def backends_for(workload: Workload) -> list[Backend]:
    """Those that apply to a workload; the first is the one that runs where nothing is measured."""
    # Only the model itself takes the factors of drop path.
    able = [backend for backend in BACKENDS if backend.kind == "eager" or not workload.drop_path]
    usable = [backend.planned(workload, "") for backend in able if backend.applies(workload)]
    return sorted(usable, key=lambda backend: backend.name != default_name(workload))


def find_backend(full_name: str, backends: Sequence[Backend], workload: Workload) -> Backend | None:
    """The one of `backends` that a full name means, with the plan that it says; None where it is not there."""
    name, _, rest = full_name.partition(" [")
    for backend in backends:
        if backend.name == name and (backend.takes_plan or not rest):
            try:
                return backend.planned(workload, rest.removesuffix("]"))
            except ValueError:  # the plan of another version
                return None
    return None


def evaluation_backends(workload: Workload) -> list[Backend]:
    """Those that apply to evaluations between the steps of a training run; the first is the model itself.

    None lays the parameters out anew, as the optimizer's moments lie as they do. None is compiled: weights that change
    would be compiled for each evaluation.
    """
    return [AS_TRAINED, *(backend for backend in backends_for(workload) if backend.kind == "fused")]


def default_name(workload: Workload) -> str:
    """The eager backend in the layout that `memory_format` takes to be the faster one."""
    return _EAGER[memory_format(workload.arch.kernel_size, workload.device)]


AS_TRAINED = Backend("eager", "eager", lambda workload: True, lambda model, workload, plan: model)
_EAGER = {torch.contiguous_format: "eager, NCHW", torch.channels_last: "eager, channels_last"}


def _eager(layout: torch.memory_format) -> Backend:
    def build(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
        return _in_layout(model, layout)

    return Backend(_EAGER[layout], "eager", lambda workload: True, build)


def _in_layout(model: ConvMixer, layout: torch.memory_format) -> ConvMixer:
    model.to(memory_format=layout)
    return model


def _compile(name: str, layout: torch.memory_format, applies: Callable[[Workload], bool]) -> Backend:
    def build(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
        # Inductor turns every network with convolutions to channels_last unless told not to.
        options = {"layout_optimization": layout == torch.channels_last, "freezing": not workload.training}
        return CompiledConvMixer(_in_layout(model, layout), workload, options)

    return Backend(name, "compile", applies, build)


def _packed(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
    from convmixer.backends.onednn_inference import PackedConvMixer

    return PackedConvMixer(model, workload.image_size, workload.dtype)


def _packed_applies(workload: Workload) -> bool:
    has_onednn = torch.backends.mkldnn.is_available()
    known = workload.dtype in (torch.float32, torch.bfloat16) and workload.arch.kernel_size % 2 == 1
    return workload.device.type == "cpu" and not workload.training and has_onednn and known


def _openvino(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
    from convmixer.backends.openvino.network import OpenVinoConvMixer

    return OpenVinoConvMixer(model, workload.image_size, workload.dtype)


def _openvino_applies(workload: Workload) -> bool:
    if workload.device.type != "cpu" or workload.training or importlib.util.find_spec("openvino") is None:
        return False
    if workload.dtype != torch.bfloat16:
        return workload.dtype == torch.float32
    try:
        from convmixer.backends.openvino.engine import has_bf16
    except ImportError:
        return False
    return has_bf16()


def _cpu_training(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
    from convmixer.backends.onednn_training import training_forward

    return FunctionOfModel(_in_layout(model, torch.channels_last), training_forward)


def _kernels(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
    return FunctionOfModel(model, _fused(plan))


def _graphed_kernels(model: ConvMixer, workload: Workload, plan: str) -> nn.Module:
    from convmixer.backends.cuda_graph import GraphedConvMixer

    return GraphedConvMixer(model, _fused(plan), workload)


def _fused(plan: str) -> Callable[[ConvMixer, Tensor], Tensor]:
    from convmixer.kernels.block import fused_forward

    return partial(fused_forward, plan=Plan.parse(plan))


def _cpu_training_applies(workload: Workload) -> bool:
    return workload.device.type == "cpu" and workload.training and workload.arch.kernel_size % 2 == 1


def _kernels_apply(workload: Workload) -> bool:
    return (
        workload.device.type == "cuda"
        and reason_against(workload.device, workload.dtype, workload.arch.kernel_size) is None
    )


def _graphs_apply(workload: Workload) -> bool:
    # Several processes sum gradients while the backward pass goes on, which a graph of all of it would forbid.
    alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    return _kernels_apply(workload) and (not workload.training or alone)


BACKENDS = (
    _eager(torch.contiguous_format),
    _eager(torch.channels_last),
    Backend("fused, oneDNN", "fused", _packed_applies, _packed, copies=True),
    Backend("fused, oneDNN", "fused", _cpu_training_applies, _cpu_training),
    Backend("fused, Triton", "fused", _kernels_apply, _kernels, takes_plan=True),
    Backend(
        "fused, Triton, CUDA graph",
        "fused",
        _graphs_apply,
        _graphed_kernels,
        holds_memory=True,
        fallback="fused, Triton",
        takes_plan=True,
    ),
    Backend("OpenVINO", "openvino", _openvino_applies, _openvino, copies=True),
    _compile("compile, channels_last", torch.channels_last, compile_applies),
    _compile(
        "compile, NCHW",
        torch.contiguous_format,
        lambda workload: workload.device.type == "cuda" and compile_applies(workload),
    ),
)
