"""`convmixer convert`: weights of any layout into another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convmixer.arch import Architecture
from convmixer.config.convert import ConvertOptions, SourceOptions
from convmixer.config.loading import Command, parse
from convmixer.errors import UserError
from convmixer.terminal.progress import note

if TYPE_CHECKING:
    from convmixer.weights.read import WeightFile

COMMAND = Command("convert", "Write weights of any layout in another one.", ConvertOptions, positional="weights")

# Endings that the programs of each layout go by; the first is the one of a file that the user has not named.
SUFFIXES = {
    "ours": (".safetensors",),
    "authors": (".pth.tar", ".pth", ".pt"),
    "timm": (".safetensors", ".pth", ".bin"),
    "mindspore": (".ckpt",),
}


def main(argv: Sequence[str]) -> int:
    options = parse(COMMAND, argv).options
    if options.to is None:
        raise UserError(f"--to: the new file's layout is needed: {', '.join(SUFFIXES)}")
    weights, architecture = open_checked(options)
    from convmixer.weights.write import write_layout, write_weights

    output = output_path(options, options.to, architecture, weights.path)
    if output.suffix == ".safetensors":
        write_weights(
            output,
            weights.state,
            architecture=architecture,
            classes=weights.classes,
            preprocessing=weights.preprocessing,
            extra=weights.metadata,
            layout=options.to,
        )
    else:
        write_layout(output, weights.state, options.to, architecture=architecture)
        for line in _lost(weights, architecture, options.to):
            note(f"{output}: {line}")
    print(output)
    return 0


def open_checked(options: SourceOptions) -> tuple[WeightFile, Architecture]:
    """The weights of the command line and their architecture. Raises UserError where they are not a whole ConvMixer."""
    if options.weights is None:
        raise UserError("WEIGHTS: a weight file, a checkpoint folder or the name of published weights is needed")
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.weights.load import build, complete
    from convmixer.weights.read import read_weights

    weights = read_weights(options.weights, options.entry)
    architecture, notes = complete(weights, options.arch, activation=options.activation)
    build(weights, architecture)
    for line in notes:
        note(line)
    return weights, architecture


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
