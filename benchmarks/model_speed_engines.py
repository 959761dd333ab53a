"""All who run in `model_speed.py`: torch's contenders, and ONNX Runtime and OpenVINO on the same weights."""

from __future__ import annotations

import copy
import io
import tempfile
import warnings
from pathlib import Path

import torch
from model_speed_contenders import OURS, TORCH, Contender, Setting, Step, Trial
from torch import nn

INPUT = "images"


def _onnx(module: nn.Module, trial: Trial) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # It writes a graph that all engines read; torch would rather have its newer exporter used.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            copy.deepcopy(module).cpu().eval(),
            (trial.images[:1].cpu(),),
            buffer,  # type: ignore[arg-type]  # the exporter that `dynamo=False` names takes one
            dynamo=False,
            do_constant_folding=False,
            input_names=[INPUT],
            dynamic_axes={INPUT: {0: "n"}},
        )
    return buffer.getvalue()


def _file(trial: Trial) -> bytes:
    """timm's module as an ONNX file; for int8 our model, quantised as `convmixer export --precision int8` does."""
    if trial.setting.precision != "int8":
        return _onnx(trial.module, trial)
    import onnx

    from convmixer.exporters.quantise import quantise

    proto = onnx.load_from_string(_onnx(trial.ours(), trial))
    quantised = quantise(proto, INPUT, iter(trial.images.numpy()[:, None]), _Normalised())  # type: ignore[arg-type]
    return quantised.SerializeToString()


class _Normalised:
    """In place of a preprocessing: the images of a trial are normalised."""

    def normalise(self, images: object) -> object:
        return images


def _onnx_runtime(trial: Trial) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_file(trial), options, providers=["CPUExecutionProvider"])
    images = trial.images.numpy()
    return lambda: [torch.from_numpy(session.run(None, {INPUT: images})[0])]


def _openvino_graph(content: bytes) -> object:
    from convmixer.backends.openvino.engine import core

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        return core().read_model(path).clone()


def _openvino(precision: str | None = None) -> Contender:
    """The whole batch as one request. `precision`: that of the file, where it is not the setting's."""

    def build(trial: Trial) -> Step:
        from convmixer.backends.openvino.engine import core

        setting = trial.setting
        graph = _openvino_graph(_onnx(trial.module, trial) if precision else _file(trial))
        graph.reshape([setting.batch, 3, setting.size, setting.size])  # type: ignore[attr-defined]
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT" if setting.batch > 1 else "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
            "INFERENCE_PRECISION_HINT": "f32" if setting.precision == "fp32" else "bf16",
        }
        compiled = core().compile_model(graph, "CPU", settings)
        images = trial.images.numpy()
        return lambda: [torch.from_numpy(compiled(images)[0])]

    return Contender(lambda s: s.on_cpu_inference and (precision is None or s.precision == "int8"), build)


def _engine_openvino(trial: Trial) -> Step:
    """An int8 file as `--engine openvino` runs it."""
    from convmixer.backends.openvino.engine import OpenVinoEngine

    engine = OpenVinoEngine(_openvino_graph(_file(trial)), "bf16")
    images = trial.images.numpy()
    return lambda: [torch.from_numpy(engine(images))]


def _takes_files(setting: Setting) -> bool:
    return setting.on_cpu_inference and setting.precision != "bf16"


CONTENDERS = {
    **TORCH,
    "ONNX Runtime": Contender(_takes_files, _onnx_runtime),
    "OpenVINO": _openvino(),
    "OpenVINO bf16": _openvino("bf16"),
    **OURS,
    "ours --engine openvino": Contender(lambda s: s.on_cpu_inference and s.precision == "int8", _engine_openvino),
}
