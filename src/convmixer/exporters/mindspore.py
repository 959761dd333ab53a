"""Export to MINDIR and AIR by MindSpore: the same network as a cell, filled with the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from convmixer.backends.mindspore_runtime import import_mindspore, side_file
from convmixer.errors import UserError, first_line
from convmixer.metadata import ModelMetadata, encode_metadata
from convmixer.model import ConvMixer
from convmixer.weights.layouts import from_native


def export_mindspore(
    model: ConvMixer, metadata: ModelMetadata, path: Path, file_format: Literal["MINDIR", "AIR"]
) -> None:
    """Write the network to `path`, and what `metadata` says of it to `side_file(path)`.

    `path` must end in .mindir or .air, as MindSpore names its files. The graph takes float32 [N, in_chans, size, size],
    normalised, of the preprocessing's size: any N in a MINDIR file, 1 in an AIR file. Raises UserError where MindSpore
    is missing, and where it refuses (AIR without an Ascend machine).
    """
    mindspore = import_mindspore()
    cell = build_cell(model)
    batch, size = None if file_format == "MINDIR" else 1, metadata.known_preprocessing.size
    shape = [batch, model.arch.in_chans, size, size]
    inputs = mindspore.Tensor(shape=shape, dtype=mindspore.float32, init=None if batch is None else "zeros")
    try:
        mindspore.export(cell, inputs, file_name=str(path.with_suffix("")), file_format=file_format)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{file_format}: MindSpore refuses the export: {reason}") from None
    record = side_file(path)
    record.write_text(encode_metadata(metadata) + "\n", encoding="utf-8")
    # MindSpore lets nobody but the owner read its file.
    path.chmod(record.stat().st_mode)


def build_cell(model: ConvMixer) -> Any:
    """The network as a MindSpore cell in inference mode, with the model's weights under the model zoo's names."""
    mindspore = import_mindspore()
    from convmixer.exporters.mindspore_cell import Network

    cell = Network(model.arch).set_train(False)
    state = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
    parameters = {
        foreign: mindspore.Parameter(mindspore.Tensor(state[name]), name=foreign)
        for name, foreign in from_native(state, "mindspore", model.arch.depth).items()
    }
    left = mindspore.load_param_into_net(cell, parameters, strict_load=True)
    assert not any(left), f"parameters without a counterpart: {left}"
    return cell
