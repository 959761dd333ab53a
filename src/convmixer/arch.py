"""The names of ConvMixer networks and what they stand for; no torch, so that options can be checked without it.

Trockman and Kolter, "Patches Are All You Need?", 2022 (https://openreview.net/forum?id=TVHS5Y4dNvM). The activations of
the named variants are those of the authors' published weights: 768/32 was trained with ReLU.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from convmixer.errors import UserError

Activation = Literal["relu", "gelu", "gelu_tanh"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


@dataclass(frozen=True)
class Architecture:
    """Shape of a ConvMixer: everything that its parameters and its function depend on but the weights."""

    dim: int
    depth: int
    kernel_size: int = 9
    patch_size: int = 7
    activation: Activation = "gelu"
    num_classes: int = 1000
    in_chans: int = 3

    @property
    def name(self) -> str:
        return f"convmixer_{self.dim}_{self.depth}"


@dataclass(frozen=True)
class Shape:
    """What the shapes of the parameters give of an architecture: all of it but the activation."""

    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    num_classes: int
    in_chans: int

    @classmethod
    def of(cls, arch: Architecture) -> Shape:
        return cls(**{item.name: getattr(arch, item.name) for item in fields(cls)})

    def with_activation(self, activation: Activation) -> Architecture:
        return Architecture(**asdict(self), activation=activation)

    def __str__(self) -> str:
        return f"convmixer_{self.dim}_{self.depth} (kernel {self.kernel_size}, patch {self.patch_size})"


@dataclass(frozen=True)
class ArchitectureHints:
    """What a user says of a network: `arch` is its name, the others are fields of Architecture; None: not given."""

    arch: str | None = None
    kernel_size: int | None = None
    patch_size: int | None = None
    activation: Activation | None = None
    num_classes: int | None = None
    in_chans: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields of Architecture that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "arch"}

    def applied_to(self, arch: Architecture) -> Architecture:
        return replace(arch, **self.given)


VARIANTS = {
    "convmixer_768_32": Architecture(768, 32, kernel_size=7, patch_size=7, activation="relu"),
    "convmixer_1024_20": Architecture(1024, 20, kernel_size=9, patch_size=14),
    "convmixer_1536_20": Architecture(1536, 20, kernel_size=9, patch_size=7),
}

_PATTERN = re.compile(
    r"convmixer_(?P<dim>[1-9]\d{0,4})_(?P<depth>[1-9]\d{0,3})(?:_ks(?P<k>[1-9]\d?)_p(?P<p>[1-9]\d?))?"
)


def parse_arch(arch: str) -> Architecture:
    """Architecture of a name: one of `VARIANTS`, any `convmixer_<dim>_<depth>`, or timm's `..._ks<k>_p<p>`.

    Raises UserError for a name of another form.
    """
    match = _PATTERN.fullmatch(arch)
    if match is None:
        near = difflib.get_close_matches(arch, VARIANTS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "it should read convmixer_<dim>_<depth>, as convmixer_768_32."
        raise UserError(f"arch: {arch!r} is not a ConvMixer; {hint}")
    base = f"convmixer_{match['dim']}_{match['depth']}"
    found = VARIANTS.get(base, Architecture(int(match["dim"]), int(match["depth"])))
    if match["k"]:
        found = replace(found, kernel_size=int(match["k"]), patch_size=int(match["p"]))
    return found


def check_image_size(arch: Architecture, size: int) -> None:
    """Raises UserError where an image of `size` x `size` pixels holds no whole patch."""
    if size < arch.patch_size:
        raise UserError(
            f"image_size: images of {size} x {size} pixels are smaller than a patch of {arch.patch_size} x "
            f"{arch.patch_size}; image_size must be at least patch_size"
        )


def architecture(
    arch: str,
    *,
    kernel_size: int | None = None,
    patch_size: int | None = None,
    activation: Activation | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
) -> Architecture:
    """`parse_arch`, with what is not None in place of the variant's. Raises UserError as it does."""
    return ArchitectureHints(arch, kernel_size, patch_size, activation, num_classes, in_chans).applied_to(
        parse_arch(arch)
    )


def list_models() -> list[str]:
    """Names of the published networks; any `convmixer_<dim>_<depth>` is a network too."""
    return list(VARIANTS)
