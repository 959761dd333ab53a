"""`convmixer infer`: classify image files by weights of any layout, or an exported file."""

from __future__ import annotations

from convmixer.cli.answers import answer, check_output, find_images
from convmixer.config.commands import INFER as COMMAND
from convmixer.config.inference import InferOptions
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.inference import open_for_inference

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[InferOptions]) -> int:
    options = resolved.options
    if options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    files = find_images(options)
    check_output(options.output)
    return answer(resolved, files, open_for_inference(resolved, len(files)))
