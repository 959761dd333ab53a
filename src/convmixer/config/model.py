"""Options of the network and of the weights that it has."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from convmixer.arch import Activation, parse_arch
from convmixer.config.options import Options, as_value_error, option

ALL = "train eval export"


class EntryOptions(Options):
    """Weights"""

    entry: str | None = option(
        None,
        "which network of a weight file that holds several, as state_dict, teacher or network",
        commands=ALL,
        affects_training=False,
    )


class WeightArchOptions(EntryOptions):
    """Weights"""

    arch: str | None = option(
        None,
        "network, where the file does not say",
        flags=("-a",),
        other_names="model_name network net architecture m",
    )
    activation: Activation | None = option(None, "activation, where neither file nor arch says")


class ModelOptions(EntryOptions):
    """Model"""

    arch: str = option(
        "convmixer_768_32",
        "network: a named variant or any convmixer_<dim>_<depth>",
        flags=("-a",),
        other_names="model model_name network net architecture m",
        commands=ALL,
    )
    num_classes: int | None = option(
        None, "number of classes; left out: as many as the data has", other_names="nb_classes", commands=ALL, ge=2
    )
    kernel_size: int | None = option(
        None, "side of the depthwise kernel; left out: the variant's", other_names="ks", commands=ALL, ge=1, le=99
    )
    patch_size: int | None = option(
        None, "side of a patch in pixels; left out: the variant's", commands=ALL, ge=1, le=99
    )
    activation: Activation | None = option(None, "activation; left out: the variant's", commands=ALL)
    in_chans: int = option(3, "image channels: 3 colour, 1 grey", ge=1, le=64)
    filter_init: Literal["torch", "covariance"] = option(
        "torch",
        "depthwise filters begin as torch's, or smooth and centred as trained ones are",
        other_names="init init_weights weight_init",
    )
    pretrained: str | None = option(
        None,
        "weight file or checkpoint folder to start from (weights only)",
        path=True,
        other_names="weights checkpoint ckpt load finetune fine_tune init_checkpoint model_path",
        commands=ALL,
        affects_training=False,
    )
    exclude_epoch_state: bool = option(
        True, "with pretrained the epoch is never taken over; kept for old YAML files", affects_training=False
    )
    freeze: bool = option(
        False,
        "train the head only, in seconds, on features that are computed once and kept",
        other_names="linear_probe",
    )
    unfreeze_epoch: int = option(
        0, "train the head alone up to this epoch, then all of the network", other_names="freeze_epochs", ge=0
    )
    drop_path: float = option(
        0.0,
        "rate at which the last block's residual branch is left out; it grows with depth",
        other_names="drop_path_rate stochastic_depth",
        ge=0,
        lt=1,
    )

    @field_validator("arch")
    @classmethod
    def _arch_is_known(cls, value: str) -> str:
        return as_value_error(parse_arch, value)
