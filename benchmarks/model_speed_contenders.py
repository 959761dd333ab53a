"""A setting, its trial, and torch's contenders: timm's module and our backends, with the same weights."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from pictures import pictures, settle_statistics
from timm.models.convmixer import ConvMixer as TimmConvMixer
from torch import Tensor, nn

from convmixer.arch import Architecture, parse_arch
from convmixer.backends.registry import Backend, backends_for
from convmixer.backends.workload import Workload
from convmixer.model import ConvMixer
from convmixer.weights.layouts import from_native

Step = Callable[[], list[Tensor]]
TUNED_BATCH = 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """A network, what is done with it, and how."""

    variant: str
    part: str
    precision: str
    batch: int
    size: int
    device: torch.device
    depth: int | None = None

    @property
    def arch(self) -> Architecture:
        arch = parse_arch(self.variant)
        return arch if self.depth is None else replace(arch, depth=self.depth)

    @property
    def checked(self) -> Setting:
        """What the answers are checked on: for training two blocks and some images. In more that are not trained yet,
        bf16's rounding grows until the gradients have nothing in common with those in fp32, whatever runs them.
        """
        return replace(self, depth=2, batch=min(self.batch, 64)) if self.training else self

    @property
    def training(self) -> bool:
        return self.part == "training"

    @property
    def on_cpu_inference(self) -> bool:
        return self.device.type == "cpu" and not self.training

    @property
    def title(self) -> str:
        return f"{self.variant} {self.part} {self.precision}, batch {self.batch}, {self.size} px"

    @property
    def tolerance(self) -> float:
        """Relative distance of logits (training: of the whole gradient) to fp32 that is the right answer in any case.

        Beyond, three times that of timm's eager module in this precision is allowed.
        """
        # That of int8 is what `export` allows it.
        return {"fp32": 1e-3, "bf16": 2e-2, "int8": 0.25}[self.precision]

    def describe(self) -> dict[str, Any]:
        names = ("variant", "part", "precision", "batch", "size")
        return {name: getattr(self, name) for name in names} | {"title": self.title}

    def workload(self) -> Workload:
        return Workload(self.arch, self.size, self.batch, DTYPES[self.precision], self.training, self.device)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


class Trial:
    """timm's module with weights and BatchNorm statistics that do not degenerate, fresh images, the fp32 answer."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        torch.manual_seed(0)
        arch = setting.arch
        activation = nn.ReLU if arch.activation == "relu" else nn.GELU
        self.module: nn.Module = TimmConvMixer(
            dim=arch.dim,
            depth=arch.depth,
            kernel_size=arch.kernel_size,
            patch_size=arch.patch_size,
            num_classes=arch.num_classes,
            act_layer=activation,
        ).to(setting.device)
        self.images = pictures(setting.batch, setting.size, seed=0).to(setting.device)
        self.labels = torch.randint(arch.num_classes, (setting.batch,)).to(setting.device)
        settle_statistics(self.module, pictures(16, setting.size, seed=1).to(setting.device))
        self.module.train(setting.training)

    @cached_property
    def right(self) -> list[Tensor]:
        """In fp32. Made when it is asked for: a whole batch in fp32 takes twice the memory of what is timed."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.step(copy.deepcopy(self.module), fp32=True)()

    def step(self, network: nn.Module, layout: Any = None, *, fp32: bool = False) -> Step:
        """A pass of a torch network: gives [logits], or for training the gradient of each parameter."""
        images = self.images if layout is None else self.images.contiguous(memory_format=layout)
        context = nullcontext if fp32 else self.setting.autocast
        if not self.setting.training:

            def infer() -> list[Tensor]:
                with torch.inference_mode(), context():
                    return [network(images)]

            return infer
        parameters = list(network.parameters())

        def train() -> list[Tensor]:
            with context():
                logits = network(images)
            loss = nn.functional.cross_entropy(logits.float(), self.labels)
            return list(torch.autograd.grad(loss, parameters))

        return train

    def error(self, answer: Sequence[Tensor]) -> float:
        """Relative distance to the fp32 answer, of all tensors as one vector. Ours and timm's have one order."""
        pairs = [(one.to(right.device).float(), right) for one, right in zip(answer, self.right, strict=True)]
        off = sum(float((one - right).square().sum()) for one, right in pairs)
        return float((off / sum(float(right.square().sum()) for _, right in pairs)) ** 0.5)

    def ours(self) -> ConvMixer:
        """This project's model with the same weights."""
        model = ConvMixer(self.setting.arch)
        state, names = self.module.state_dict(), from_native(model.state_dict(), "timm", model.arch.depth)
        model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
        return model.to(self.setting.device).train(self.setting.training)


@dataclass(frozen=True)
class Contender:
    """`build` makes a step that answers as `Trial.step` says; see `Backend` for `holds_memory`."""

    applies: Callable[[Setting], bool]
    build: Callable[[Trial], Step]
    holds_memory: bool = False


def _timm(layout: torch.memory_format, *, compiled: bool) -> Contender:
    def build(trial: Trial) -> Step:
        module: nn.Module = copy.deepcopy(trial.module).to(memory_format=layout)
        if compiled:
            # Inductor turns every network with convolutions to channels_last unless told not to.
            options = {"layout_optimization": layout == torch.channels_last}
            return trial.step(torch.compile(module, dynamic=False, options=options), layout)  # type: ignore[arg-type]
        return trial.step(module, layout)

    return Contender(lambda setting: setting.precision in DTYPES, build)


def _frozen(trial: Trial) -> Step:
    module = copy.deepcopy(trial.module).to(memory_format=torch.channels_last)
    frozen = torch.compile(module, dynamic=False, options={"freezing": True})
    return trial.step(frozen, torch.channels_last)  # type: ignore[arg-type]


def _on_gpu(setting: Setting) -> bool:
    return setting.device.type == "cuda"


def _backend_of(setting: Setting, kind: str, number: int = 0) -> Backend | None:
    """Our backend of this kind; where there are several, the one of this number."""
    if setting.precision not in DTYPES:
        return None
    found = [backend for backend in backends_for(setting.workload()) if backend.kind == kind]
    return found[number] if number < len(found) else None


def _ours(trial: Trial, kind: str, number: int = 0, *, tuned: bool = False) -> Step:
    backend = _backend_of(trial.setting, kind, number)
    assert backend is not None
    workload = trial.setting.workload()
    if tuned:
        plan = _tuned_plan(
            trial.setting.variant, workload.image_size, workload.dtype, workload.training, workload.device
        )
        backend = backend.planned(workload, plan)
        print(backend.full_name, file=sys.stderr, flush=True)
    network = backend.network(trial.ours(), workload).train(trial.setting.training)
    return trial.step(network, torch.channels_last)


@lru_cache
def _tuned_plan(variant: str, size: int, dtype: torch.dtype, training: bool, device: torch.device) -> str:
    """The forms that this machine's times choose, for batches of `TUNED_BATCH`: once for a check and what is timed."""
    from convmixer.kernels.tuning import tuned_plan

    return str(tuned_plan(parse_arch(variant), TUNED_BATCH, size, dtype, device, training=training, seconds=40.0))


def _fp32_default(trial: Trial) -> Step:
    return trial.step(copy.deepcopy(trial.module), torch.contiguous_format, fp32=True)


TORCH = {
    # What people run who do nothing about speed; of a lower precision too the measure on a CPU.
    "timm eager NCHW fp32": Contender(lambda s: s.device.type == "cpu" and s.precision != "fp32", _fp32_default),
    "timm eager NCHW": _timm(torch.contiguous_format, compiled=False),
    "timm eager channels_last": _timm(torch.channels_last, compiled=False),
    "timm compiled NCHW": _timm(torch.contiguous_format, compiled=True),
    "timm compiled channels_last": _timm(torch.channels_last, compiled=True),
    "timm compiled frozen": Contender(lambda s: s.on_cpu_inference and s.precision in DTYPES, _frozen),
}


def _has_backend(setting: Setting, kind: str) -> bool:
    """On a GPU our compiled backends are timm's, compiled: once is enough."""
    return _backend_of(setting, kind) is not None and not (kind == "compile" and _on_gpu(setting))


OURS = {
    f"ours {kind}": Contender(
        partial(_has_backend, kind=kind),
        partial(_ours, kind=kind),
    )
    for kind in ("eager", "fused", "compile", "openvino")
} | {
    # The second of the fused backends, which a GPU has.
    "ours fused, CUDA graph": Contender(
        lambda setting: _backend_of(setting, "fused", 1) is not None,
        lambda trial: _ours(trial, "fused", 1),
        holds_memory=True,
    ),
    "ours fused, tuned": Contender(_on_gpu, lambda trial: _ours(trial, "fused", tuned=True)),
    "ours fused, tuned, CUDA graph": Contender(
        lambda setting: _on_gpu(setting) and _backend_of(setting, "fused", 1) is not None,
        lambda trial: _ours(trial, "fused", 1, tuned=True),
        holds_memory=True,
    ),
}
