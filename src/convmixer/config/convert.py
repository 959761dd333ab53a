"""Options of turning weights into another layout, and of publishing them."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from convmixer.config.log import LogOptions
from convmixer.config.model import WeightArchOptions
from convmixer.config.options import option


class SourceOptions(WeightArchOptions):
    """Weights"""

    weights: str | None = option(
        None,
        "weight file, checkpoint folder, or name of published weights",
        path=True,
        other_names="checkpoint pretrained input model model_path",
    )


class ConvertOptions(LogOptions, SourceOptions):
    """Layout"""

    to: Literal["native", "authors", "timm", "mindspore"] | None = option(
        None, "layout of the new file", other_names="format layout target"
    )
    output: str | None = option(None, "the new file; left out: named after the network", flags=("-o",), path=True)

    @field_validator("to", mode="before")
    @classmethod
    def _under_its_old_name(cls, value: object) -> object:
        return "native" if value == "ours" else value


class PushOptions(LogOptions, SourceOptions):
    """Repository"""

    repo: str | None = option(None, "repository on the hub, as user/name")
    private: bool = option(False, "make a new repository private")
    recipe: str | None = option(
        None, "YAML file of the training's options, or a shipped recipe, to publish too", path=True
    )
    license: str | None = option(None, "licence of the weights, by the hub's short name, as apache-2.0")
    dry_run: bool = option(False, "write the folder and upload nothing")
    output: str | None = option(
        None, "folder to write; left out with dry_run: the repository's name", flags=("-o",), path=True
    )
