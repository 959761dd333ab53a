"""Answers as one JSON document, in the two forms of the model zoo's program."""

from __future__ import annotations

import json
from typing import Any

from convmixer.answers.growing import GrowingFile
from convmixer.prediction import Prediction


class ClassDocument(GrowingFile):
    """A path -> its class; null where the model is unsure."""

    begin, end = "{", "}\n"
    takes_errors = False
    begins_with = (b"{\n", b"{}")

    def added(self, prediction: Prediction) -> str:
        text = json.dumps({prediction.path: self.answer(prediction)}, indent=1)[1:-2]  # without the braces
        return "," + text if self.count else text

    def answer(self, prediction: Prediction) -> Any:
        """What stands behind the path."""
        return None if prediction.unsure else prediction.index

    def _closing(self) -> bytes:
        return b"\n}\n" if self._position or self.count else b"}\n"


class FullDocument(ClassDocument):
    """A path -> class, name, and the most likely classes with their probabilities."""

    def answer(self, prediction: Prediction) -> Any:
        top = [{"class": each.index, "name": each.name, "probability": each.probability} for each in prediction.topk]
        record = {"class": prediction.index, "name": prediction.name, "top": top}
        return record | {"unsure": True} if prediction.unsure else record
