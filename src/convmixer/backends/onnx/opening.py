"""From an ONNX file to a runtime: looked through, tried on one image within bounds, then given to its engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import Timer

import numpy as np
import onnxruntime

from convmixer.backends.graph_input import InputForm, form_of
from convmixer.backends.graph_runtime import Engine, GraphRuntime, chosen_preprocessing
from convmixer.backends.memory_limit import memory_growth
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.backends.onnx.inside import OnnxInside
from convmixer.backends.onnx.session import (
    CPU,
    SILENT,
    OnnxFile,
    Provider,
    is_out_of_memory,
    providers_for,
    reason,
    too_large,
)
from convmixer.backends.probabilities import random_image
from convmixer.errors import UserError
from convmixer.metadata import KEY, ModelMetadata, decode_metadata

logger = logging.getLogger(__name__)


def open_onnx(path: str, choose: Chooser, request: DeviceRequest) -> ModelFile:
    """Open an ONNX file. Raises UserError for one that is missing, broken, too large, or answers no images.

    What a file of others does not say is ImageNet's; see `backends.opening.open_model`.
    """
    other_engine = request.engine == "openvino"
    if other_engine and request.is_required and request.target == "GPU":
        raise UserError("--engine: openvino runs on the CPU; leave out GPU, or the engine")
    # ONNX Runtime reads what the file says of itself in any case, and proves on the CPU that it can be run.
    providers = [CPU] if other_engine else providers_for(request)
    file = OnnxFile.checked(path)
    cautious = file.graph.computes_constants() or providers != [CPU]
    session = file.session([CPU], fold=not cautious)
    metadata, output = _metadata(path, session), _output(path, session, request.output)
    form = _form(path, session, metadata)
    chosen = chosen_preprocessing(path, form, metadata, choose)
    runtime = GraphRuntime(path, _engine(session, output, form), form, metadata, chosen)
    answers = _proven(runtime, session, output, *file.bounds(chosen, form.batch or 1))
    if other_engine:
        from convmixer.backends.openvino.opening import openvino_engine

        index = [entry.name for entry in session.get_outputs()].index(output)
        runtime = replace(runtime, engine=openvino_engine(path, metadata, index))
    elif cautious:
        runtime = replace(runtime, engine=_engine(_final(file, providers, request), output, form))
    model = runtime.as_model(answers, file.graph.last_operator(output))
    assert isinstance(model.runtime, GraphRuntime)
    return replace(model, open_inside=partial(OnnxInside, model.runtime, output))


def _engine(
    session: onnxruntime.InferenceSession, output: str, form: InputForm, settings: onnxruntime.RunOptions | None = None
) -> Engine:
    def run(batch: np.ndarray) -> object:
        try:
            return session.run([output], {form.name: batch}, settings)[0]
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime has no base class of its errors
            raise RuntimeError(reason(error)) from None

    return run


def _final(file: OnnxFile, providers: Sequence[Provider], request: DeviceRequest) -> onnxruntime.InferenceSession:
    """The session that the file is run in, once it is known to be harmless."""
    session = file.session(providers)
    if request.is_required and request.target == "GPU" and session.get_providers()[0] == CPU:
        raise UserError("GPU: ONNX Runtime could not start on it; leave the option out to run on the CPU")
    return session


def _proven(
    runtime: GraphRuntime, session: onnxruntime.InferenceSession, output: str, growth: int, seconds: float
) -> np.ndarray:
    """What one image, drawn at random, gets before anything is undone: [1, classes], within bounds.

    `growth`: bytes that it may take. Raises UserError for a file that needs more of either, or does not run.
    """
    settings = onnxruntime.RunOptions()
    settings.log_severity_level = SILENT
    bell = Timer(seconds, setattr, (settings, "terminate", True))
    bell.daemon = True
    bounded = replace(runtime, engine=_engine(session, output, runtime.form, settings))
    bell.start()
    try:
        with memory_growth(growth):
            return bounded.logits(random_image(runtime.preprocessing))
    except MemoryError:
        raise too_large(runtime.path, growth) from None
    except UserError as error:
        if settings.terminate:
            raise UserError(f"{runtime.path}: does not answer an image within {seconds:.0f} s") from None
        raise too_large(runtime.path, growth) if is_out_of_memory(str(error)) else error from None
    finally:
        bell.cancel()


def _form(path: str, session: onnxruntime.InferenceSession, metadata: ModelMetadata | None) -> InputForm:
    form = form_of(path, session.get_inputs())
    embedded = metadata is not None and metadata.embed_preprocess
    if embedded and not (form.takes_pixels and form.channels_last):
        raise UserError(f"{path}: a damaged ONNX file: its input is not the one that its record names")
    return form


def _output(path: str, session: onnxruntime.InferenceSession, wanted: str | None) -> str:
    """The output that holds the logits: the one that is asked for, else the first that can be [images, classes]."""
    names = [entry.name for entry in session.get_outputs()]
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"--onnx_output: {path} has no output {wanted}, but {', '.join(names)}")
        return wanted
    flat = [entry.name for entry in session.get_outputs() if len(entry.shape) in (0, 2)]
    chosen: str = (flat or names)[0]
    if len(names) > 1:
        logger.info(f"{path}: has the outputs {', '.join(names)}; {chosen} is taken, see --onnx_output")
    return chosen


def _metadata(path: str, session: onnxruntime.InferenceSession) -> ModelMetadata | None:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        return None if text is None else decode_metadata(text)
    except ValueError as error:
        raise UserError(f"{path}: a damaged ONNX file: {error}") from None
