"""Images to answers, printed and written as they come: what infer and infer-onnx share."""

from __future__ import annotations

import logging
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmixer.answer_file import AnswerFile, line_of
from convmixer.cli.raising_signals import RaisingSignals, Signalled
from convmixer.config.resolved import Resolved
from convmixer.data.folders import Files, ignored_line, open_files
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inference import predictions
from convmixer.terminal.progress import Progress

if TYPE_CHECKING:
    from convmixer.backends.model_file import ModelFile

logger = logging.getLogger(__name__)


def find_images(options: Any) -> Files:
    """The images that the command line names. Raises UserError where there are none."""
    if options.data is None:
        raise UserError("DATA: an image or a folder of images is needed")
    files = open_files(options.data, recursive=options.recursive)
    if files.ignored:
        logger.info(ignored_line(files.ignored, "the images"))
    return files


def check_output(name: str) -> Path:
    """Path of the answers' file, which can be written; checked before the work, and nothing is left there.

    Raises UserError where it cannot, or where something else than answers would be lost: an image, weights.
    """
    path = Path(name)
    try:
        if path.is_dir():
            raise UserError(f"--output: {path} is a folder; name a file in it")
        if path.exists() and not path.is_file():
            return path  # a device or a pipe: opening it may wait for its reader
        is_new = not path.exists()
        with path.open("ab+") as file:
            file.seek(0)
            head = file.read(2)
        if is_new:
            path.unlink()
    except OSError as error:
        reason = error.strerror if path.parent.is_dir() else f"there is no folder {path.parent}"
        raise UserError(f"--output: {path} cannot be written: {reason}") from None
    if head not in (b"", b"{\n", b"{}"):
        raise UserError(f"--output: {path} is there already and holds no answers; name another file")
    return path


def answer(resolved: Resolved[Any], files: Files, model: ModelFile, *, ahead: int = 2) -> int:
    """Classify the files, print and write each answer as it comes, and return the exit code.

    Where the reader of stdout goes away the work ends, but goes on where the user named a file with --output.
    """
    options = resolved.options
    full = options.format == "full"
    unreadable, stopped, is_read = 0, None, True
    with Progress(len(files), "infer") as progress, AnswerFile(Path(options.output), full=full) as answers:
        try:
            with RaisingSignals() as signals:
                for prediction in predictions(resolved, model, files, ahead=ahead, on_batch=progress.add, named=full):
                    if prediction.error is not None:
                        unreadable += 1
                        logger.warning(f"not classified: {prediction.path}: {prediction.error}")
                        continue
                    # A pipe may wait for its reader, and must not be waited for.
                    with signals.held() if answers.is_file else nullcontext():
                        answers.add(prediction)
                    is_read = is_read and _shown(line_of(prediction, full=full))
                    if not is_read and not (resolved.is_explicit("output") and answers.is_file):
                        raise Signalled(signal.SIGPIPE)
        except Signalled as signalled:
            stopped = signalled
        rate = progress.rate
    logger.info(f"{answers.count} images, {rate:.1f} img/s; answers in {options.output}")
    if unreadable:
        logger.warning(f"{unreadable} of {answers.count + unreadable} images could not be read")
    if stopped is not None:
        logger.warning(f"{stopped} after {answers.count + unreadable} of {len(files)} images")
        return stopped.exit_code
    return RUN_FAILED if unreadable else 0


def _shown(line: str) -> bool:
    """Print the line at once, and tell whether stdout has a reader still."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        return False
    return True
