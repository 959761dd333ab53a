"""What answers requests: images decoded in threads, batches through the model, pictures of what spoke for an answer."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from convmixer.answers.record import record_of
from convmixer.backends.inside import Inside
from convmixer.backends.model_file import ModelFile
from convmixer.class_activation import overlaid
from convmixer.config.serve import ServeOptions
from convmixer.data.crops import eval_crop
from convmixer.data.decode import decode_image
from convmixer.data.formats.signatures import detect_format, why_not_read
from convmixer.data.limits import BadImage
from convmixer.data.reader import only_this_image
from convmixer.errors import UserError
from convmixer.inference import names_of
from convmixer.machine import workers
from convmixer.prediction import answered
from convmixer.serve.batching import Batcher, Full
from convmixer.serve.uploads import Refused, Upload

_LIMIT = "more than the limit"  # of pixels or a side, in the decoders' words


class Classifier:
    """A model in service."""

    def __init__(self, model: ModelFile, options: ServeOptions, on_batch: Callable[[int], None]) -> None:
        self.model, self.options, self.names = model, options, names_of(model)
        self.batcher = Batcher(model.runtime.logits, options.max_batch, options.queue, on_batch)
        threads = workers(options.decoders)
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # What is decoded and not yet waiting for the model takes the memory of an image each.
        self._at_once = threads * 2
        self._places: asyncio.Semaphore | None = None
        self._explaining, self._inside = threading.Lock(), self._open_inside()

    def warm(self) -> None:
        """Run every size of batch once: the first run of each prepares it. Raises UserError where the model fails."""
        size, channels = self.model.preprocessing.size, self.model.preprocessing.channels
        count = 1
        while count <= self.options.max_batch:
            self.model.runtime.logits(np.zeros((count, size, size, channels), np.uint8))
            count *= 2

    def about(self) -> dict[str, Any]:
        """What clients may know of the model."""
        arch = self.model.architecture
        names = [str(index) for index in range(self.model.num_classes)] if self.names is None else self.names.names
        return {
            "architecture": None if arch is None else arch.name,
            "classes": list(names),
            "preprocessing": self.model.preprocessing.to_dict(),
            "explains": self._inside is not None,
            "max_bytes": int(self.options.max_mb * 1e6),
            "max_pixels": self.options.max_pixels,
        }

    async def predict(self, uploads: Sequence[Upload], topk: int | None = None) -> list[dict[str, Any]]:
        """An answer per image, in their order: `name`, `index`, `probability`, `topk`; or `error` and `status`.

        Raises Refused (503) where too many wait.
        """
        try:
            self.batcher.reserve(len(uploads))
        except Full:
            raise Refused(503, "too many images wait; try again in a moment") from None
        try:
            return list(await asyncio.gather(*(self._answer(each, topk or self.options.topk) for each in uploads)))
        finally:
            self.batcher.release(len(uploads))

    async def explain(self, upload: Upload, index: int | None) -> bytes:
        """The crop that the model sees with what spoke for the class `index`, or for its answer: a PNG file.

        Raises Refused: as `predict`, 400 for a class that is not there, and 501 for a model that does not show its
        inside.
        """
        if self._inside is None:
            raise Refused(501, "this model file does not show what it looks at")
        if index is not None and not 0 <= index < self.model.num_classes:
            raise Refused(400, f"index: there are classes 0 to {self.model.num_classes - 1}")
        try:
            self.batcher.reserve(1)
        except Full:
            raise Refused(503, "too many images wait; try again in a moment") from None
        try:
            crop = await self._crop(upload)
            if index is None:
                index = int(np.argmax(await self.batcher.answer(crop)))
            return await asyncio.get_running_loop().run_in_executor(self._decoders, self._picture, crop, index)
        finally:
            self.batcher.release(1)

    def close(self) -> None:
        """Answer what waits, and end."""
        self.batcher.close()
        self._decoders.shutdown()

    async def _answer(self, upload: Upload, topk: int) -> dict[str, Any]:
        try:
            crop = await self._crop(upload)
        except Refused as refused:
            return {"error": refused.reason, "status": refused.status}
        (prediction,) = answered((await self.batcher.answer(crop))[None], [upload.name], self.names, topk)
        record = record_of(prediction)
        del record["path"]
        return record if prediction.error is None else {**record, "status": 500}

    async def _crop(self, upload: Upload) -> np.ndarray:
        if self._places is None:
            self._places = asyncio.Semaphore(self._at_once)
        async with self._places:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode, upload.content)

    def _decode(self, content: bytes) -> np.ndarray:
        if not detect_format(content)[0]:
            raise Refused(415, why_not_read(content))
        preprocessing, limit = self.model.preprocessing, self.options.max_pixels
        try:
            with only_this_image():
                image = decode_image(
                    content, channels=preprocessing.channels, exif=preprocessing.exif, max_pixels=limit
                )
                return eval_crop(image, preprocessing, limit)
        except BadImage as bad:
            reason = str(bad).replace(" (--max_pixels)", "")
            raise Refused(413 if _LIMIT in reason else 415 if "is not read" in reason else 400, reason) from None

    def _picture(self, crop: np.ndarray, index: int) -> bytes:
        assert self._inside is not None
        with self._explaining:  # one at a time: predictions go before
            (map_,) = self._inside.class_maps(crop[None], np.array([index]))
        file = io.BytesIO()
        Image.fromarray(overlaid(crop, map_)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def _open_inside(self) -> Inside | None:
        """None for a model that does not show its inside, or only seems to: it is tried once."""
        size, channels = self.model.preprocessing.size, self.model.preprocessing.channels
        try:
            inside = self.model.inside()
            inside.class_maps(np.zeros((1, size, size, channels), np.uint8), np.array([0]))
        except UserError:
            return None
        return inside
