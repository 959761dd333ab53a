"""Options of the commands that run ONNX files."""

from __future__ import annotations

from typing import Literal

from convmixer.config.data import DecodingOptions
from convmixer.config.evaluation import ScoreOptions
from convmixer.config.execution import DeviceOptions
from convmixer.config.inference import AnswerFileOptions, ImageOptions, InputOptions, ReadingOptions
from convmixer.config.log import LogOptions
from convmixer.config.options import option


class OnnxOptions(DeviceOptions):
    """Model"""

    onnx_path: str | None = option(
        None,
        "ONNX file; left out: the only one in the current folder",
        path=True,
        other_names="model model_path onnx checkpoint weights pretrained",
    )
    device_target: Literal["CPU", "GPU"] | None = option(
        None, "where to run; left out: a GPU if there is one", flags=("-m",), other_names="device gpu"
    )
    engine: Literal["onnxruntime", "openvino"] = option(
        "onnxruntime", "what runs the file; openvino is for CPUs and takes bf16 beside int8 where the processor has it"
    )
    onnx_output: str | None = option(
        None, "output that holds the logits; left out: the first of form [images, classes]"
    )
    prefetch: int = option(16, "batches that the threads decode ahead of the model", ge=1, le=1024)


class LabelledOptions(ReadingOptions):
    """Images"""

    dataset: str | None = option(
        None,
        "folder of labelled images, with one folder per class",
        path=True,
        other_names="data data_url data_dir data_path path folder",
    )
    batch_size: int = option(16, "images at once", other_names="bs batch b", ge=1)


class EvalOnnxOptions(LogOptions, ScoreOptions, DecodingOptions, InputOptions, OnnxOptions, LabelledOptions):
    """Options of `eval-onnx`."""


class InferOnnxOptions(LogOptions, DecodingOptions, InputOptions, AnswerFileOptions, OnnxOptions, ImageOptions):
    """Options of `infer-onnx`."""
