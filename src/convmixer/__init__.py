"""ConvMixer image classifiers: train, evaluate, use and export them.

    import convmixer
    run = convmixer.train("flowers", epochs=20)
    print(convmixer.evaluate(run.best_weights, "flowers").top1)
    for answer in convmixer.predict(run.best_weights, "photos"):
        print(answer.path, answer.name, answer.probability)
    convmixer.export(run.best_weights, "flowers.onnx")

`load_model` gives a torch module that knows its classes and its input, `create_model` a new one, `list_models` the
names. What goes on is logged to `logging.getLogger("convmixer")`. The command line is `convmixer`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convmixer.api.classifier import Classifier, load_model
    from convmixer.api.evaluation import EvaluationResult, evaluate
    from convmixer.api.export import export
    from convmixer.api.prediction import predict
    from convmixer.api.training import train
    from convmixer.arch import list_models
    from convmixer.config.schema import Config
    from convmixer.errors import UserError
    from convmixer.exporters.proven import ExportResult
    from convmixer.model import ConvMixer, create_model
    from convmixer.prediction import ClassProbability, Prediction
    from convmixer.runs.result import RunResult

__version__ = "0.1.0"
__all__ = [
    "ClassProbability",
    "Classifier",
    "Config",
    "ConvMixer",
    "EvaluationResult",
    "ExportResult",
    "Prediction",
    "RunResult",
    "UserError",
    "__version__",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "load_model",
    "predict",
    "train",
]

# Imported late, so that `convmixer --help` and the commands that need no torch start without importing it.
_HOMES = {
    "ClassProbability": "prediction",
    "Classifier": "api.classifier",
    "Config": "config.schema",
    "ConvMixer": "model",
    "EvaluationResult": "api.evaluation",
    "ExportResult": "exporters.proven",
    "Prediction": "prediction",
    "RunResult": "runs.result",
    "UserError": "errors",
    "create_model": "model",
    "evaluate": "api.evaluation",
    "export": "api.export",
    "list_models": "arch",
    "load_model": "api.classifier",
    "predict": "api.prediction",
    "train": "api.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convmixer' has no attribute {name!r}")
    from convmixer.packages import needed_for

    with needed_for(f"convmixer.{name}"):
        value = getattr(import_module(f"convmixer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
