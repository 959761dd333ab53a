"""Which file of a folder holds the weights, and weights that are split over several files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convmixer.errors import UserError
from convmixer.run_names import by_start

logger = logging.getLogger(__name__)

# The averaged weights come first: with EMA, evaluation and export use them. The last three are the hub's, in the order
# in which transformers looks for them.
FOLDER_FILES = ("best.safetensors", "ema.safetensors", "model.safetensors")
INDEX = ".index.json"
_HUB_FILES = (f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
_JSON_MAX = 8_000_000  # bytes
_SHARDS_MAX = 256


def file_of_folder(folder: Path, accepted: str) -> Path:
    """The file that is meant by a folder: of a checkpoint, of the newest run below, or of a model of the hub."""
    for name in (*FOLDER_FILES, *_HUB_FILES):
        if (folder / name).is_file():
            return folder / name
    runs = sorted(folder.glob("*/best.safetensors"), key=lambda best: by_start(best.parent.name))
    if runs:
        logger.info(f"{folder}: the best weights of its newest run, {runs[-1]}")
        return runs[-1]
    steps = sorted(child.name for child in folder.glob("step_*") if child.is_dir())
    hint = f"; did you mean {folder / steps[-1]}?" if steps else f"; {accepted}."
    raise UserError(f"{folder}: a folder without {' or '.join(reversed(FOLDER_FILES))}{hint}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises ValueError in a few words where it does not, OSError as open does."""
    with path.open("rb") as file:
        content = file.read(_JSON_MAX + 1)
    if len(content) > _JSON_MAX:
        raise ValueError(f"larger than {_JSON_MAX // 10**6} MB")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("no valid JSON") from None
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    return values


def read_shards(index: Path, read: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """The tensors that an index says lie in the files beside it; `read` gives those of one file.

    Raises UserError for an index that is malformed or names files elsewhere, and for a tensor that is not in its file.
    """
    try:
        weight_map = read_json(index)["weight_map"]
        shards = sorted(set(weight_map.values()))
        if not all(isinstance(shard, str) and Path(shard).name == shard for shard in shards):
            raise ValueError("names files of other folders")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it has no weight_map"
        raise UserError(f"{index}: cannot be used: {reason}; fetch it again.") from None
    if len(shards) > _SHARDS_MAX:
        raise UserError(f"{index}: names {len(shards)} files, which no ConvMixer is split into.")
    tensors: dict[str, Any] = {}
    for shard in shards:
        held = read(index.with_name(shard))
        tensors |= {name: tensor for name, tensor in held.items() if weight_map.get(name) == shard}
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise UserError(f"{index}: {missing[0]} is not in {weight_map[missing[0]]}; fetch both again.")
    return tensors
