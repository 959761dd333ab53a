"""Images to answers, printed and written as they come: what infer and infer-onnx share."""

from __future__ import annotations

import logging
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from convmixer.answers.explaining import Explainer
from convmixer.answers.files import STDOUT, AnswerWriter, StdoutLines, check_output, open_answers
from convmixer.answers.record import line_of
from convmixer.cli.named_images import named_images
from convmixer.cli.raising_signals import RaisingSignals, Signalled
from convmixer.config.resolved import Resolved
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED
from convmixer.inference import predictions
from convmixer.prediction import Prediction
from convmixer.terminal.progress import Progress

if TYPE_CHECKING:
    from convmixer.backends.model_file import ModelFile

logger = logging.getLogger(__name__)


def prepare(options: Any) -> Source:
    """The images that the command line names, once it is known that their answers can be written.

    Raises UserError where there are none, and for an output that cannot be written.
    """
    images = named_images(options.data, options)
    check_output(options.output, embeddings=options.embed)
    if options.explain is not None:
        Explainer.check(options.explain)
    return images


def answer(resolved: Resolved[Any], images: Source, model: ModelFile, *, ahead: int = 2) -> int:
    """Classify the images, print and write each answer as it comes, and return the exit code.

    Where the reader of stdout goes away the work ends, but goes on where the user named a file with --output.
    """
    options = resolved.options
    explainer = None if options.explain is None else Explainer(options.explain, model.inside())
    full = options.format == "full"
    found = predictions(
        resolved,
        model,
        images,
        ahead=ahead,
        on_batch=lambda count: progress.add(count),
        on_crops=None if explainer is None else explainer.write,
        named=full,
    )
    with (
        Progress(len(images), "infer") as progress,
        open_answers(options.output, full=full, topk=options.topk) as answers,
    ):
        telling = _Telling(answers, full, goes_on=resolved.is_explicit("output") and answers.is_file)
        try:
            with RaisingSignals() as signals:
                for prediction in found:
                    # A pipe may wait for its reader, and must not be waited for.
                    with signals.held() if answers.is_file else nullcontext():
                        telling.write(prediction)
                    telling.show(prediction)
        except Signalled as signalled:
            telling.stopped = signalled
        rate = progress.rate
    where = "" if options.output == STDOUT else f"; answers in {options.output}"
    logger.info(f"{telling.answered} images, {rate:.1f} img/s{where}")
    if explainer is not None:
        logger.info(f"{explainer.count} pictures of what spoke for the answers in {options.explain}")
    return telling.ended(len(images))


class _Telling:
    """Answers on their way to a file and to stdout. `goes_on`: also where stdout has no reader any more."""

    def __init__(self, answers: AnswerWriter, full: bool, goes_on: bool) -> None:
        self.answers, self.full, self.goes_on = answers, full, goes_on
        self.answered = self.unreadable = 0
        self.is_read, self.stopped = True, None  # type: bool, Signalled | None

    def write(self, prediction: Prediction) -> None:
        """Put an answer into the file; one that is an error as well, where the file has a place for it."""
        if prediction.error is not None:
            self.unreadable += 1
            logger.warning(f"not classified: {prediction.path}: {prediction.error}")
            if not self.answers.takes_errors:
                return
        else:
            self.answered += 1
        try:
            self.answers.add(prediction)
        except BrokenPipeError:
            self.is_read = False

    def show(self, prediction: Prediction) -> None:
        """Print its line. Raises Signalled where nobody reads it, and nothing else is to be done."""
        if prediction.error is None and self.is_read and not isinstance(self.answers, StdoutLines):
            try:
                print(line_of(prediction, full=self.full), flush=True)
            except BrokenPipeError:
                self.is_read = False
        if not self.is_read and not self.goes_on:
            raise Signalled(signal.SIGPIPE)

    def ended(self, total: int) -> int:
        """Say how it ended, and return the exit code."""
        done = self.answered + self.unreadable
        if self.unreadable:
            logger.warning(f"{self.unreadable} of {done} images could not be read")
        if self.stopped is not None:
            logger.warning(f"{self.stopped} after {done} of {total} images")
            return self.stopped.exit_code
        return RUN_FAILED if self.unreadable else 0
