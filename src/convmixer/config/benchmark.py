"""Options of comparing model files on this machine."""

from __future__ import annotations

from convmixer.config.options import Options, option


class BenchmarkOptions(Options):
    """Benchmark"""

    files: tuple[str, ...] = option(
        (),
        "model files: weights, ONNX, OpenVINO's .xml, .pt2, .pte",
        path=True,
        other_names="models model checkpoint checkpoints weights onnx_path",
        commands="benchmark",
    )
    batch_size: int = option(
        32, "images of the larger batch", other_names="bs batch b", commands="benchmark", ge=1, le=65536
    )
    seconds: float = option(2.0, "how long each file is timed, at each of both batch sizes", commands="benchmark", gt=0)
    json_file: str | None = option(
        None, "the comparison as JSON", also="json", path=True, other_names="output out o", commands="benchmark"
    )
