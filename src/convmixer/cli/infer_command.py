"""`convmixer infer`: classify image files by weights of any layout, an ONNX or a MINDIR file."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from convmixer.backends.runtime import tune
from convmixer.config.inference import InferOptions
from convmixer.config.loading import Command, Resolved, parse
from convmixer.data.folders import Files, ignored_line, open_files
from convmixer.data.imagenet import imagenet_classes
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inputs import preprocessing_for
from convmixer.prediction import AnswerFile, line_of, predict
from convmixer.signals import heeded
from convmixer.terminal.progress import Progress, note

if TYPE_CHECKING:
    import torch

    from convmixer.backends.model_file import ModelFile

COMMAND = Command("infer", "Classify an image or a folder of images.", InferOptions, positional="data")


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv)
    options = resolved.options
    if options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    files = find_images(options)
    check_output(options.output)
    # No engine is imported before the file tells which one it needs.
    from convmixer.backends.model_file import DeviceRequest
    from convmixer.backends.opening import open_model

    model = open_model(
        options.checkpoint,
        partial(preprocessing_for, resolved),
        DeviceRequest(options.device_target, options.device_id, resolved.is_explicit("device_target")),
        arch=options.arch,
        autocast=partial(_autocast, options),
        activation=options.activation,
        entry=options.entry,
    )
    way, is_explicit = options.execution, resolved.is_explicit("execution")
    tune(model.runtime, len(files), options.batch_size, model.preprocessing.size, way, is_explicit=is_explicit)
    return answer(resolved, files, model)


def _autocast(options: InferOptions, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Maker of the context in which weights run in the precision of the options."""
    from convmixer.precision import Precision

    return Precision.of(options, device).autocast


def find_images(options: Any) -> Files:
    """The images that the command line names. Raises UserError where there are none."""
    if options.data is None:
        raise UserError("DATA: an image or a folder of images is needed")
    files = open_files(options.data, recursive=options.recursive)
    if files.ignored:
        note(ignored_line(files.ignored, "the images"))
    return files


def check_output(name: str) -> Path:
    """Path of the answers' file, which can be written; asked before the work, and nothing is left there.

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
    full, classes = options.format == "full", model.classes
    if full and classes is None and model.num_classes == len(imagenet_classes()):
        classes = imagenet_classes()
        note(f"the model names no classes; its {len(classes)} are taken for ImageNet's")
    faults, stopped, is_read = 0, None, True
    with Progress(len(files), "infer") as progress, AnswerFile(Path(options.output), classes, full=full) as answers:
        try:
            with RaisingSignals() as signals:
                for prediction in predict(
                    model.runtime,
                    files,
                    model.preprocessing,
                    batch_size=options.batch_size,
                    threads=options.num_parallel_workers,
                    ahead=ahead,
                    topk=options.topk,
                    on_batch=progress.add,
                    max_pixels=options.max_pixels,
                ):
                    if prediction.fault is not None:
                        faults += 1
                        note(f"not classified: {prediction.path}: {prediction.fault}")
                        continue
                    # A pipe may wait for its reader, and must not be waited for.
                    with signals.held() if answers.is_file else nullcontext():
                        answers.add(prediction)
                    is_read = is_read and _shown(line_of(prediction, classes, full=full))
                    if not is_read and not (resolved.is_explicit("output") and answers.is_file):
                        raise Signalled(signal.SIGPIPE)
        except Signalled as signalled:
            stopped = signalled
        rate = progress.rate
    note(f"{answers.count} images, {rate:.1f} img/s; answers in {options.output}")
    if faults:
        note(f"{faults} of {answers.count + faults} images could not be read")
    if stopped is not None:
        note(f"{stopped} after {answers.count + faults} of {len(files)} images")
        return stopped.exit_code
    return RUN_FAILED if faults else 0


def _shown(line: str) -> bool:
    """Print the line at once, and tell whether stdout has a reader still."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        return False
    return True


class Signalled(BaseException):
    """The work was ended by a signal; `exit_code` is 128 plus its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class RaisingSignals:
    """Within the context SIGINT, SIGTERM and SIGHUP raise Signalled at the next line of Python; one that is ignored
    stays so."""

    def __init__(self) -> None:
        self._held, self._sent = False, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> RaisingSignals:
        for number in heeded((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            self._before[number] = signal.signal(number, self._raise)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this context a signal waits for its end: what is begun is done whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._sent:
            raise Signalled(self._sent)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._sent = number
        if not self._held:
            raise Signalled(number)
