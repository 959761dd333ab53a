"""Options of averaging weights."""

from __future__ import annotations

from convmixer.config.log import LogOptions
from convmixer.config.model import WeightArchOptions
from convmixer.config.options import option
from convmixer.config.run import FolderOptions


class AverageOptions(LogOptions, FolderOptions, WeightArchOptions):
    """Average"""

    weights: tuple[str, ...] = option(
        (),
        "run (its name or a folder of it), weight files or checkpoint folders",
        path=True,
        other_names="run checkpoint checkpoints pretrained input model model_path",
    )
    last: int = option(5, "of a run this many checkpoints, the newest", other_names="n num count", ge=1)
    output: str = option("averaged.safetensors", "the new file", flags=("-o",), path=True)
