"""ConvMixer image classifiers: train, evaluate, use and export them.

`create_model(arch, **options)` and `load_model(path, arch=None)` return torch modules in eval mode; `Config` holds the
options of a run. The command line is `convmixer`.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Config", "__version__", "create_model", "load_model"]


def __getattr__(name: str) -> Any:
    # Late, so that `convmixer --help` and the commands that need no torch start without importing it.
    if name == "Config":
        from convmixer.config.schema import Config

        return Config
    if name == "create_model":
        from convmixer.model import create_model

        return create_model
    if name == "load_model":
        from convmixer.weights.load import load_model

        return load_model
    raise AttributeError(f"module 'convmixer' has no attribute {name!r}")
