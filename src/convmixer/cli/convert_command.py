"""`convmixer convert`: weights of any layout into another."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from convmixer.arch import Architecture
from convmixer.cli.weight_source import open_checked
from convmixer.config.command import Command
from convmixer.config.convert import ConvertOptions
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError

if TYPE_CHECKING:
    from convmixer.weights.read import WeightFile

logger = logging.getLogger(__name__)

COMMAND = Command("convert", "Write weights of any layout in another one.", ConvertOptions, positional="weights")

# Endings that the programs of each layout go by; the first is the one of a file that the user has not named.
SUFFIXES = {
    "native": (".safetensors",),
    "authors": (".pth.tar", ".pth", ".pt"),
    "timm": (".safetensors", ".pth", ".bin"),
    "mindspore": (".ckpt",),
}


def run(resolved: Resolved[ConvertOptions]) -> int:
    options = resolved.options
    if options.to is None:
        raise UserError(f"--to: the new file's layout is needed: {', '.join(SUFFIXES)}")
    weights, architecture = open_checked(options)
    from convmixer.weights.write import write_layout, write_weights

    output, layout = output_path(options, options.to, architecture, weights.path), options.to
    if output.suffix == ".safetensors" and (layout == "native" or layout == "timm"):
        write_weights(
            output,
            weights.state,
            architecture=architecture,
            classes=weights.classes,
            preprocessing=weights.preprocessing,
            extra=weights.metadata,
            layout=layout,
        )
    else:
        write_layout(output, weights.state, layout, architecture=architecture)
        for line in _lost(weights, architecture, layout):
            logger.info(f"{output}: {line}")
    print(output)
    return 0


def output_path(options: ConvertOptions, layout: str, architecture: Architecture, source: Path) -> Path:
    """Where the new file goes. Raises UserError for a wrong ending, or where it would replace what it is made from."""
    suffixes = SUFFIXES[layout]
    if options.output is None:
        path = Path(architecture.name + ("_timm" if layout == "timm" else "") + suffixes[0])
        if path.exists():
            raise UserError(f"{path}: is there already; name the new file with --output")
        return path
    path = Path(options.output)
    if not path.name.endswith(suffixes):
        raise UserError(f"--output: {path} must end in {' or '.join(suffixes)} for --to {layout}")
    if not path.parent.is_dir():
        raise UserError(f"--output: there is no folder {path.parent}")
    # A file of a checkpoint folder is not replaced either, be it another than the one that is read.
    in_checkpoint = Path(str(options.weights)).is_dir() and path.parent.samefile(source.parent)
    if in_checkpoint or (path.exists() and path.samefile(source)):
        raise UserError(f"--output: {path} is what is converted; name another file")
    return path


def _lost(weights: WeightFile, architecture: Architecture, layout: str) -> list[str]:
    """What the new file cannot say, in lines for the user."""
    lost = [f"the activation ({architecture.activation})"]
    if weights.classes is not None:
        lost.append(f"the names of the {len(weights.classes)} classes")
    if weights.preprocessing is not None:
        lost.append("the preprocessing")
    lines = [f"this layout has no place for {', '.join(lost)}"]
    if layout == "mindspore" and architecture.activation == "gelu":
        lines.append(
            "the network computes GELU by erf: nn.GELU(approximate=False) in MindSpore, --activation gelu here"
        )
    return lines
