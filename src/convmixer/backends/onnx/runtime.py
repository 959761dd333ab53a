"""The ONNX runtime: ONNX files, ours with their record and those of others without one; no torch.

A file of ours with the preprocessing in its graph is fed from the same crops as any other: a crop is laid into the
middle of an empty image of the size that the graph resizes to, so that its resize changes nothing and its own centre
crop is the very same pixels. Thus batches of images of any size can be evaluated, by the same loop.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Timer

import numpy as np
import onnxruntime

from convmixer.backends.memory_limit import memory_growth
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.backends.onnx.input import form_of
from convmixer.backends.onnx.session import (
    CPU,
    SILENT,
    OnnxFile,
    first_line,
    is_out_of_memory,
    providers_for,
    too_large,
)
from convmixer.backends.probabilities import Undo, random_image, undo_for
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError
from convmixer.metadata import KEY, ModelMetadata, decode
from convmixer.terminal.progress import note


class OnnxRuntime:
    """Runs a session whose only input is a batch of images; `output` names the one that holds the logits.

    A file of ours with its preprocessing in the graph takes whole images, uint8, as `metadata` says.
    """

    def __init__(
        self, path: str, session: onnxruntime.InferenceSession, metadata: ModelMetadata | None, output: str
    ) -> None:
        self.path, self.session, self.metadata, self.output = path, session, metadata, output
        self.embedded = metadata is not None and metadata.embed_preprocess
        self.form = form_of(path, session.get_inputs())
        if self.embedded and not (self.form.takes_pixels and self.form.channels_last):
            raise UserError(f"{path}: a damaged ONNX file: its input is not the one that its record names")
        self.answer: Callable[[np.ndarray], object] = self._session_run
        self.undo: Undo | None = None
        self.num_classes: int | None = None
        # Until `open_onnx` has chosen, what the file says.
        self.preprocessing = (None if metadata is None else metadata.preprocessing) or Preprocessing()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        inputs = self._canvases(images) if self.embedded else self.form.batch_of(images, self.preprocessing)
        step = self.form.batch or max(len(inputs), 1)
        # A graph of fixed batch gets its last images with zeros behind them.
        missing = -len(inputs) % step
        inputs = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
        parts = [self._run(inputs[first : first + step]) for first in range(0, len(inputs), step)]
        answers = np.concatenate(parts)[: len(images)]
        return answers.astype(np.float32, copy=False) if self.undo is None else self.undo(answers)

    def prove(self, growth: int, seconds: float) -> np.ndarray:
        """What one image, drawn at random, gets before anything is undone: [1, classes], within bounds.

        `growth`: bytes that it may take. Raises UserError for a file that needs more of either, or does not run.
        """
        settings = onnxruntime.RunOptions()
        settings.log_severity_level = SILENT
        bell = Timer(seconds, setattr, (settings, "terminate", True))
        bell.daemon = True
        self.answer = lambda batch: self.session.run([self.output], {self.form.name: batch}, settings)[0]
        bell.start()
        try:
            with memory_growth(growth):
                answers = self.logits(random_image(self.preprocessing))
        except MemoryError:
            raise too_large(self.path, growth) from None
        except UserError as error:
            if settings.terminate:
                raise UserError(f"{self.path}: does not answer an image within {seconds:.0f} s") from None
            raise too_large(self.path, growth) if is_out_of_memory(str(error)) else error from None
        finally:
            bell.cancel()
            self.answer = self._session_run
        return answers

    def _canvases(self, images: np.ndarray) -> np.ndarray:
        size = images.shape[1]
        assert self.metadata is not None
        side = self.metadata.known_preprocessing.resize
        first = round((side - size) / 2)
        out = np.zeros((len(images), side, side, images.shape[3]), np.uint8)
        out[:, first : first + size, first : first + size] = images
        return out

    def _run(self, batch: np.ndarray) -> np.ndarray:
        try:
            out = self.answer(batch)
        except MemoryError:
            raise
        except Exception as error:  # the engines have no base class of their errors
            raise UserError(f"{self.path}: does not run: {first_line(error)}", exit_code=RUN_FAILED) from None
        if isinstance(out, np.ndarray) and out.ndim > 2 and set(out.shape[2:]) == {1}:
            out = out.reshape(out.shape[:2])  # a map of one position
        if not isinstance(out, np.ndarray) or out.ndim != 2 or len(out) != len(batch) or out.dtype.kind != "f":
            form = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise UserError(f"{self.path}: answers {len(batch)} images with {form}, not with logits [images, classes]")
        if out.shape[1] != (self.num_classes or out.shape[1]):
            raise UserError(f"{self.path}: answers in {out.shape[1]} classes, and in {self.num_classes} before")
        return out

    def _session_run(self, batch: np.ndarray) -> object:
        return self.session.run([self.output], {self.form.name: batch})[0]


def open_onnx(path: str, choose: Chooser, request: DeviceRequest) -> ModelFile:
    """Open an ONNX file. Raises UserError for one that is missing, broken, too large, or answers no images.

    What a file of others does not say is ImageNet's; see `opening.open_model`.
    """
    other_engine = request.engine == "openvino"
    if other_engine and request.is_explicit and request.target == "GPU":
        raise UserError("--engine: openvino runs on the CPU; leave out GPU, or the engine")
    # ONNX Runtime reads what the file says of itself in any case, and proves on the CPU that it can be run.
    providers = [CPU] if other_engine else providers_for(request)
    file = OnnxFile.checked(path)
    cautious = file.graph.computes_constants() or providers != [CPU]
    session = file.session([CPU], fold=not cautious)
    metadata = _metadata(path, session)
    runtime = OnnxRuntime(path, session, metadata, _output(path, session, request.output))
    chosen = _choose(runtime, choose)
    runtime.preprocessing = chosen
    answers = runtime.prove(*file.bounds(chosen, runtime.form.batch or 1))
    runtime.undo = undo_for(path, answers, file.graph.last_operator(runtime.output))
    runtime.num_classes = count = answers.shape[1]
    classes = None if metadata is None else metadata.classes
    if count < 1:
        raise UserError(f"{path}: answers in {count} classes")
    if classes is not None and len(classes) != count:
        raise UserError(f"{path}: names {len(classes)} classes, but answers in {count}")
    if other_engine:
        index = [entry.name for entry in session.get_outputs()].index(runtime.output)
        runtime.answer = _openvino(path, metadata, index)
    elif cautious:
        runtime.session = file.session(providers)
        if request.is_explicit and request.target == "GPU" and runtime.session.get_providers()[0] == CPU:
            raise UserError("GPU: ONNX Runtime could not start on it; leave the option out to run on the CPU")
    return ModelFile(runtime, chosen, classes, count, None if metadata is None else metadata.architecture)


def _choose(runtime: OnnxRuntime, choose: Chooser) -> Preprocessing:
    """The preprocessing, as far as the file leaves a choice."""
    path, form, metadata = runtime.path, runtime.form, runtime.metadata
    record = None if metadata is None else metadata.preprocessing
    size = record.size if runtime.embedded and record is not None else form.side
    chosen = choose(record, form.channels or (3 if record is None else record.channels), size)
    if size is not None and chosen.size != size:
        raise UserError(f"{path}: takes images of {size} x {size} pixels, --image_size says {chosen.size}")
    if not form.takes_pixels:
        return chosen
    given = (chosen.mean, chosen.std)
    if runtime.embedded and record is not None and given != (record.mean, record.std):
        raise UserError(f"{path}: normalises its images itself; --mean and --std cannot be changed")
    if not runtime.embedded:
        if form.channels != 1 and given != (Preprocessing.mean, Preprocessing.std):
            raise UserError(f"{path}: takes uint8 pixels as they are; --mean and --std are for float input")
        note(f"{path}: takes uint8 pixels, 0 to 255, as they are; normalising them is left to the file")
    return chosen


def _output(path: str, session: onnxruntime.InferenceSession, wanted: str | None) -> str:
    """The output that holds the logits: the one that is asked for, else the first that can be [images, classes]."""
    names = [entry.name for entry in session.get_outputs()]
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"--onnx_output: {path} has no output {wanted}, but {', '.join(names)}")
        return wanted
    flat = [entry.name for entry in session.get_outputs() if len(entry.shape) in (0, 2)]
    chosen = (flat or names)[0]
    if len(names) > 1:
        note(f"{path}: has the outputs {', '.join(names)}; {chosen} is taken, see --onnx_output")
    return chosen


def _openvino(path: str, metadata: ModelMetadata | None, output: int) -> Callable[[np.ndarray], object]:
    """The file in OpenVINO; what it leaves in fp32 stays so, but for the rest of an int8 or fp16 one."""
    try:
        import openvino

        from convmixer.backends.openvino.engine import OpenVinoEngine, core, has_bf16, is_quantised
    except ModuleNotFoundError as error:
        raise UserError(f"--engine: openvino needs {error.name}, pip install 'convmixer[openvino]'") from None
    except ImportError as error:
        raise UserError(f"--engine: openvino is installed, but cannot be imported: {first_line(error)}") from None
    try:
        graph = core().read_model(path)
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO does not know it: {first_line(error)}") from None
    lower = is_quantised(graph) or (metadata is not None and metadata.precision != "fp32")
    precision = "bf16" if lower and has_bf16() else "f32"
    note(f"OpenVINO {openvino.__version__.partition('-')[0]}, {'int8 and ' if is_quantised(graph) else ''}{precision}")
    return OpenVinoEngine(graph, precision, output)


def _metadata(path: str, session: onnxruntime.InferenceSession) -> ModelMetadata | None:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        return None if text is None else decode(text)
    except ValueError as error:
        raise UserError(f"{path}: a damaged ONNX file: {error}") from None
