"""Options of serving a model."""

from __future__ import annotations

from convmixer.config.inference import ModelUseOptions, TopkOptions
from convmixer.config.model import WeightArchOptions
from convmixer.config.options import Options, option


class ServedModelOptions(WeightArchOptions):
    """Model"""

    model: str | None = option(
        None,
        "weights, a run's folder, an ONNX or OpenVINO file, or another model file",
        path=True,
        other_names="checkpoint weights pretrained model_path onnx_path",
    )


class AddressOptions(Options):
    """Address"""

    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0: all of this machine's", other_names="address bind")
    port: int = option(8000, "port to listen at; 0: any that is free", other_names="p", ge=0, le=65535)
    workers: int = option(
        1, "processes, each with the model; one that dies is started anew", other_names="processes", ge=1, le=64
    )
    token: str | None = option(
        None,
        "ask for it in the header Authorization: Bearer TOKEN; or in the environment as CONVMIXER_TOKEN",
        other_names="api_key password",
        secret=True,
    )


class LoadOptions(Options):
    """Load"""

    max_batch: int = option(32, "images at once, of those that wait", other_names="batch_size bs", ge=1, le=1024)
    queue: int = option(256, "images that may wait; beyond it the answer is 503", other_names="max_queue", ge=1)
    decoders: int | None = option(
        None, "threads that decode; left out: one per core", other_names="num_parallel_workers threads", ge=1, le=256
    )
    max_mb: float = option(20.0, "MB of a request; beyond it the answer is 413", gt=0, le=4096)
    timeout: float = option(30.0, "seconds that a request may take to arrive; beyond it the answer is 408", gt=0)
    grace: float = option(30.0, "seconds that requests get to be answered when the server is stopped", ge=0)


class ServeOptions(ModelUseOptions, LoadOptions, AddressOptions, TopkOptions, ServedModelOptions):
    """Options of `serve`."""
