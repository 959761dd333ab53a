"""The images of some parts to the parts' files, in one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmixer.answers.record import record_of
from convmixer.answers.rows import require_parquet
from convmixer.bulk.parts import Parts, file_digest, fingerprint
from convmixer.config.bulk import BulkOptions
from convmixer.config.resolved import Resolved
from convmixer.data.source import Source
from convmixer.data.unlabelled.opening import open_images
from convmixer.errors import UserError
from convmixer.inference import predictions
from convmixer.model_opening import open_for_inference
from convmixer.weights.folder import file_of_folder

if TYPE_CHECKING:
    from convmixer.backends.model_file import ModelFile


@dataclass(frozen=True)
class BulkWork:
    """All the images, and the parts that their answers are written in."""

    resolved: Resolved[BulkOptions]
    images: Source
    parts: Parts

    @classmethod
    def opened(cls, resolved: Resolved[BulkOptions]) -> BulkWork:
        """The work that the options describe; the folder of its parts says so from then on.

        Raises UserError where there are no images, or the folder holds another work.
        """
        options = resolved.options
        if options.data is None or options.out is None:
            raise UserError("DATA OUT: images and a folder for the answers are needed, as in convmixer bulk photos out")
        if options.checkpoint is None:
            raise UserError("--checkpoint: a weight file, a checkpoint folder or a model file is needed")
        if options.part_format == "parquet":
            require_parquet()
        checkpoint = _file_of(options.checkpoint)
        images = open_images([options.data], recursive=options.recursive, column=options.column)
        parts = Parts(options.out, len(images), options.part_size, options.part_format)
        parts.begin(
            {
                "images_sha256": fingerprint(images),
                "model_sha256": file_digest(checkpoint) if os.path.exists(checkpoint) else checkpoint,
                "answers": {name: getattr(options, name) for name in ("topk", "threshold", "embed")},
                "input": {
                    name: value
                    for name in ("image_size", "crop_pct", "mean", "std", "interpolation", "exif", "max_pixels")
                    if (value := _plain(getattr(options, name))) is not None
                },
            }
        )
        own: dict[str, Any] = {"checkpoint": checkpoint}
        if not resolved.is_explicit("device_id"):
            own["device_id"] = number_of("LOCAL_RANK", 0)  # each process of a machine has a device of its own
        return cls(replace(resolved, options=options.model_copy(update=own)), images, parts)

    def open_model(self, parts: Sequence[int]) -> ModelFile:
        """The model, run as is best for the images of so many parts. Raises UserError for what does not fit."""
        return open_for_inference(self.resolved, sum(len(self.parts.indices(part)) for part in parts))

    def classify(
        self, model: ModelFile, parts: Sequence[int], on_batch: Callable[[int], None] | None = None
    ) -> tuple[int, int]:
        """Write these parts, ascending, and return how many images were answered, and how many could not be read.

        Decoding goes on over the bounds of parts. In memory are the answers of a part and a few batches of images.
        """
        indices = np.concatenate([self.parts.indices(part) for part in parts])
        found = predictions(self.resolved, model, self.images, indices=indices, on_batch=on_batch)
        unreadable = 0
        for part in parts:
            records = [record_of(next(found)) for _ in range(len(self.parts.indices(part)))]
            self.parts.write(part, records)
            unreadable += sum("error" in record for record in records)
        return len(indices) - unreadable, unreadable


def this_process() -> tuple[int, int]:
    """Rank and number of the processes that share the work: those of torchrun's environment, else one.

    Raises UserError for numbers that make no sense.
    """
    rank, count = number_of("RANK", 0), number_of("WORLD_SIZE", 1)
    if rank >= count:
        raise UserError(f"RANK: is {rank}, but WORLD_SIZE says {count} process(es)")
    return rank, count


def number_of(variable: str, default: int) -> int:
    """A number in the environment. Raises UserError for what is none."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        raise UserError(f"{variable}: is {text!r} in the environment, which is no number")
    return int(text)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _file_of(checkpoint: str) -> str:
    """The file that is meant, which of a folder of runs is the newest one's now; a published name stands for itself."""
    path = Path(checkpoint)
    return str(file_of_folder(path, "name a file")) if path.is_dir() else checkpoint
