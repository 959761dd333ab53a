"""`convmixer eval`: weights of any layout, an ONNX or a MINDIR file on a labelled split."""

from __future__ import annotations

from convmixer.cli.unreadable import name_unreadable_images
from convmixer.config.commands import EVAL as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.inference import evaluate_model

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[Config]) -> int:
    score, source = evaluate_model(resolved)
    print(f"eval results: {score.results()}")
    return name_unreadable_images(score, source)
