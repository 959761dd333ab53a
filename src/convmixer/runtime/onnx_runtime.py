"""The ONNX runtime: ONNX files, ours with their record and those of others without one; no torch.

A file of ours with the preprocessing in its graph is fed from the same crops as any other: a crop is laid into the
middle of an empty image of the size that the graph resizes to, so that its resize changes nothing and its own centre
crop is the very same pixels. Thus batches of images of any size can be evaluated, by the same loop.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError
from convmixer.progress import note
from convmixer.runtime.about import KEY, About, decode
from convmixer.runtime.external_data import refuse_external_data_elsewhere
from convmixer.runtime.model_file import Chooser, DeviceWish, ModelFile

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_FATAL = 4
# What ONNX Runtime puts before the reason: its own name, a code, and the path that is said already.
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed: ?)?")


class OnnxRuntime:
    """Runs a session whose only input is a batch of images, float NCHW, or uint8 NHWC where `about` says so.

    `batch`, `channels`, `height` and `width` are those of the input, None where it takes any.
    """

    def __init__(self, path: str, session: onnxruntime.InferenceSession, about: About | None = None) -> None:
        self.path, self.session, self.about = path, session, about
        self.embedded = about is not None and about.embed_preprocess
        entry = session.get_inputs()[0]
        self.name, self.output = entry.name, session.get_outputs()[0].name
        self.answer: Callable[[np.ndarray], object] = self._session_run
        shape = [side if isinstance(side, int) else None for side in entry.shape]
        if len(session.get_inputs()) != 1:
            raise UserError(
                f"{path}: has {len(session.get_inputs())} inputs; a model of one, a batch of images, is run"
            )
        form = "[batch, height, width, channels], uint8" if self.embedded else "[batch, channels, height, width], float"
        fits = entry.type == "tensor(uint8)" if self.embedded else entry.type in _FLOATS
        if len(shape) != 4 or not fits:
            raise UserError(f"{path}: its input is {entry.type} {entry.shape}, not {form}")
        self.dtype = _FLOATS.get(entry.type, np.float32)
        self.batch, self.channels = shape[0], shape[3] if self.embedded else shape[1]
        self.height, self.width = shape[1:3] if self.embedded else shape[2:]
        if self.height != self.width:
            raise UserError(f"{path}: its input is {self.height} x {self.width} pixels; square images are run")
        if self.channels not in (None, 1, 3):
            raise UserError(f"{path}: its input {entry.shape} has {self.channels} channels; {form} of 1 or 3 is run")
        # Until `open_onnx` has chosen, what the file says.
        self.preprocessing = about.preprocessing if about is not None else Preprocessing()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        inputs = self._inputs(images)
        step = self.batch or max(len(inputs), 1)
        # A graph of fixed batch gets its last images with zeros behind them.
        missing = -len(inputs) % step
        inputs = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
        parts = [self._run(inputs[first : first + step]) for first in range(0, len(inputs), step)]
        return np.concatenate(parts)[: len(images)].astype(np.float32, copy=False)

    def _inputs(self, images: np.ndarray) -> np.ndarray:
        if self.embedded:
            return self._canvases(images)
        return self.preprocessing.normalise(images).astype(self.dtype, copy=False)

    def _canvases(self, images: np.ndarray) -> np.ndarray:
        size = images.shape[1]
        assert self.about is not None
        side = self.about.preprocessing.resize
        first = round((side - size) / 2)
        out = np.zeros((len(images), side, side, images.shape[3]), np.uint8)
        out[:, first : first + size, first : first + size] = images
        return out

    def _run(self, batch: np.ndarray) -> np.ndarray:
        try:
            out = self.answer(batch)
        except Exception as error:  # the engines have no base class of their errors
            raise UserError(f"{self.path}: does not run: {_first_line(error)}", exit_code=RUN_FAILED) from None
        if not isinstance(out, np.ndarray) or out.ndim != 2 or len(out) != len(batch):
            form = getattr(out, "shape", type(out).__name__)
            raise UserError(f"{self.path}: answers {len(batch)} images with {form}, not with [images, classes]")
        return out

    def _session_run(self, batch: np.ndarray) -> object:
        return self.session.run([self.output], {self.name: batch})[0]


def open_onnx(path: str, choose: Chooser, wish: DeviceWish) -> ModelFile:
    """Open an ONNX file. Raises UserError for one that is missing, broken, or answers no images.

    What a file of others does not say is ImageNet's; see `opening.open_model`.
    """
    other_engine = wish.engine == "openvino"
    if other_engine and wish.asked and wish.target == "GPU":
        raise UserError("--engine: openvino runs on the CPU; leave out GPU, or the engine")
    # ONNX Runtime reads what the file says of itself in any case.
    session = open_session(path, DeviceWish("CPU") if other_engine else wish)
    about = _about(path, session)
    runtime = OnnxRuntime(path, session, about)
    record = None if about is None else about.preprocessing
    size = record.size if runtime.embedded and record is not None else runtime.height
    chosen = choose(record, runtime.channels or (3 if record is None else record.channels), size)
    if size is not None and chosen.size != size:
        raise UserError(f"{path}: takes images of {size} x {size} pixels, --image_size says {chosen.size}")
    if runtime.embedded and record is not None and (chosen.mean, chosen.std) != (record.mean, record.std):
        raise UserError(f"{path}: normalises its images itself; --mean and --std cannot be changed")
    runtime.preprocessing = chosen
    if other_engine:
        runtime.answer = _openvino(path, about)
    count = _num_classes(runtime, chosen)
    classes = None if about is None else about.classes
    if classes is not None and len(classes) != count:
        raise UserError(f"{path}: names {len(classes)} classes, but answers in {count}")
    return ModelFile(runtime, chosen, classes, count, None if about is None else about.architecture)


def open_session(path: str, wish: DeviceWish) -> onnxruntime.InferenceSession:
    """A session on the device that is wished for. Raises UserError for a file that cannot be run."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    refuse_external_data_elsewhere(Path(path))
    providers = _providers(wish)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = _processors()
    settings.log_severity_level = _FATAL
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=providers)
    except Exception as error:  # ONNX Runtime has no base class of its errors
        raise UserError(
            f"{path}: a broken ONNX file, or one that ONNX Runtime does not know: {_first_line(error)}"
        ) from None
    if wish.asked and wish.target == "GPU" and session.get_providers()[0] == "CPUExecutionProvider":
        raise UserError("GPU: ONNX Runtime could not start on it; leave the option out to run on the CPU")
    return session


def _providers(wish: DeviceWish) -> list[str | tuple[str, dict[str, object]]]:
    """The execution providers, best first."""
    if wish.target == "Ascend":
        raise UserError("--device_target: ONNX files run on GPU or CPU, not on Ascend")
    if wish.target != "CPU":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return [("CUDAExecutionProvider", {"device_id": wish.index}), "CPUExecutionProvider"]
        if wish.target == "GPU" and wish.asked:
            raise UserError("GPU: this ONNX Runtime has none; install onnxruntime-gpu, or leave the option out")
        note("ONNX Runtime finds no GPU, running on the CPU")
    return ["CPUExecutionProvider"]


def _openvino(path: str, about: About | None) -> Callable[[np.ndarray], object]:
    """The file in OpenVINO; what it leaves in fp32 stays so, but for the rest of an int8 or fp16 one."""
    try:
        import openvino

        from convmixer.runtime.openvino_engine import OpenVinoEngine, core, has_bf16, is_quantised
    except ModuleNotFoundError as error:
        raise UserError(f"--engine: openvino needs {error.name}, pip install 'convmixer[openvino]'") from None
    try:
        graph = core().read_model(path)
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO does not know it: {_first_line(error)}") from None
    lower = is_quantised(graph) or (about is not None and about.precision != "fp32")
    precision = "bf16" if lower and has_bf16() else "f32"
    note(f"OpenVINO {openvino.__version__.partition('-')[0]}, {'int8 and ' if is_quantised(graph) else ''}{precision}")
    return OpenVinoEngine(graph, precision)


def _about(path: str, session: onnxruntime.InferenceSession) -> About | None:
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    try:
        return None if text is None else decode(text)
    except ValueError as error:
        raise UserError(f"{path}: a damaged ONNX file: {error}") from None


def _num_classes(runtime: OnnxRuntime, chosen: Preprocessing) -> int:
    """Number of classes, from the file, or where it does not say from an answer."""
    shape = runtime.session.get_outputs()[0].shape
    if len(shape) == 2 and isinstance(shape[1], int):
        return shape[1]
    answer = runtime.logits(np.zeros((1, chosen.size, chosen.size, chosen.channels), np.uint8))
    return int(answer.shape[1])


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _PREFIX.sub("", lines[0])
