"""ONNX Runtime's sessions: of files that were looked through first, on the devices that are there, within bounds."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from convmixer.backends.memory_limit import memory_growth
from convmixer.backends.model_file import DeviceRequest
from convmixer.backends.onnx.external_data import external_bytes
from convmixer.backends.onnx.graph import OnnxGraph, read_graph
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError, first_line
from convmixer.machine import usable_cores

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
SILENT = 4  # ONNX Runtime's log level: fatal errors only, the others are raised
# What an image may take: a fixed part, and more for large inputs and files, as honest networks need it. ConvMixer
# 768/32 takes 8 MB at 224 px; of known networks VGG-16 has the largest maps, of 64 channels, each 21 times its input.
GROWTH, GROWTH_PER_INPUT, GROWTH_PER_WEIGHTS = 512 * 2**20, 64, 4
SECONDS, SECONDS_PER_MEGAPIXEL, SECONDS_PER_MEGABYTE = 7.0, 20.0, 0.5
# Of a long message the end is gone, but not the name of the arena that gives memory out.
_OUT_OF_MEMORY = re.compile("bad_alloc|bfc_arena|[Ff]ailed to allocate memory|MemoryError|would require more than")
# What ONNX Runtime puts before the reason: its own name, a code, and the path that the message has already.
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed: ?)?")

Provider = str | tuple[str, dict[str, object]]


@dataclass(frozen=True)
class OnnxFile:
    """A file that was looked through. `weights`: bytes of it and of those that it keeps its weights in."""

    path: str
    graph: OnnxGraph
    weights: int

    @classmethod
    def checked(cls, path: str) -> OnnxFile:
        """Raises UserError for a file that is not there, reads files elsewhere, or repeats parts of itself."""
        file = Path(path)
        if not file.is_file():
            raise UserError(f"{path}: no such file")
        graph = read_graph(file)
        graph.refuse_repetition(file)
        return cls(path, graph, file.stat().st_size + external_bytes(file))

    def session(self, providers: Sequence[Provider], *, fold: bool = True) -> onnxruntime.InferenceSession:
        """A session. `fold` False: nothing is computed while it is opened. Raises UserError for a broken file."""
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = usable_cores()
        settings.log_severity_level = SILENT
        left_out = [] if fold else ["ConstantFolding"]
        growth = GROWTH + GROWTH_PER_WEIGHTS * self.weights
        try:
            if providers != [CPU]:
                return onnxruntime.InferenceSession(self.path, settings, providers=providers)
            with memory_growth(growth):
                # Its own fallback would try the very same again, and say so on stdout.
                session = onnxruntime.InferenceSession(
                    self.path, settings, providers=providers, disabled_optimizers=left_out, enable_fallback=0
                )
            # Names that are no text are found here, not when they are used.
            for entry in (*session.get_inputs(), *session.get_outputs()):
                _ = entry.name, entry.shape
            return session
        except Exception as error:  # ONNX Runtime has no base class of its errors
            if isinstance(error, MemoryError) or is_out_of_memory(str(error)):
                raise too_large(self.path, growth) from None
            raise UserError(
                f"{self.path}: a broken ONNX file, or one that ONNX Runtime does not know: {reason(error)}"
            ) from None

    def bounds(self, chosen: Preprocessing, batch: int) -> tuple[int, float]:
        """Bytes and seconds that a batch may take, one image where `batch` is 1."""
        pixels = batch * chosen.size**2
        growth = GROWTH + GROWTH_PER_INPUT * 4 * chosen.channels * pixels + self.weights
        return growth, SECONDS + SECONDS_PER_MEGAPIXEL * pixels / 1e6 + SECONDS_PER_MEGABYTE * self.weights / 1e6


def providers_for(request: DeviceRequest) -> list[Provider]:
    """The execution providers, best first. Raises UserError for a device that was asked for and is not there."""
    if request.target == "Ascend":
        raise UserError("--device_target: ONNX files run on GPU or CPU, not on Ascend")
    if request.target != "CPU":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return [("CUDAExecutionProvider", {"device_id": request.index}), CPU]
        if request.target == "GPU" and request.is_required:
            raise UserError("GPU: this ONNX Runtime has none; install onnxruntime-gpu, or leave the option out")
        logger.info("ONNX Runtime finds no GPU, running on the CPU")
    return [CPU]


def is_out_of_memory(message: str) -> bool:
    """Whether ONNX Runtime says by it that there was no memory left."""
    return _OUT_OF_MEMORY.search(message) is not None


def too_large(path: str, growth: int) -> UserError:
    """What refuses a file that takes more memory than its size and its images explain."""
    return UserError(f"{path}: needs more than {growth / 2**30:.2g} GiB of memory for an image; this is refused")


def reason(error: Exception) -> str:
    """The first line of an error, without what ONNX Runtime puts before it."""
    return _PREFIX.sub("", first_line(error))
