"""`convmixer infer`: classify images by weights of any layout, or an exported file."""

from __future__ import annotations

from convmixer.cli.answers import answer, prepare
from convmixer.config.commands import INFER as COMMAND
from convmixer.config.inference import InferOptions
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.model_opening import open_for_inference

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[InferOptions]) -> int:
    if resolved.options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    images = prepare(resolved.options)
    return answer(resolved, images, open_for_inference(resolved, len(images)))
