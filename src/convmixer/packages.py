"""The packages that the program imports: which extra of ours brings one, and what is said where it is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from convmixer.errors import UserError, first_line

# Packages without which nothing runs, as pip calls them.
CORE = ("numpy", "pillow", "pydantic", "PyYAML", "simplejpeg", "tqdm")


@dataclass(frozen=True)
class Extra:
    """An extra of pyproject.toml: what it is for, and the packages that it names, as pip calls them."""

    purpose: str
    packages: tuple[str, ...]


# A package that several have is said to come with the first. docs/install.md has this table for users.
EXTRAS = {
    "torch": Extra(
        "the engine: training, weight files, reports",
        ("torch", "safetensors", "tensorboardX", "pytorch_optimizer", "matplotlib", "Jinja2"),
    ),
    "onnxruntime": Extra("using ONNX files, without torch", ("onnxruntime", "onnx")),
    "onnx": Extra("export to ONNX", ("onnxscript", "onnx", "onnxruntime")),
    "openvino": Extra("--execution and --engine openvino, export to OPENVINO, IR files", ("openvino",)),
    "executorch": Extra("export to EXECUTORCH, and .pte files", ("executorch",)),
    "serve": Extra(
        "convmixer serve", ("starlette", "uvicorn", "httptools", "uvloop", "python-multipart", "prometheus-client")
    ),
    "parquet": Extra("answers and images in Parquet files", ("pyarrow",)),
    "ray": Extra("bulk --ray", ("ray",)),
    "hub": Extra("published weights by name, and push", ("huggingface_hub",)),
    "remote": Extra("images and tar shards at an address", ("fsspec", "aiohttp")),
    "datasets": Extra("--set datasets", ("datasets",)),
    "heif": Extra("HEIC photos", ("pi-heif",)),
    "tensorboard": Extra("looking at a run's curves", ("tensorboard",)),
    "wandb": Extra("--log_to wandb", ("wandb",)),
    "mlflow": Extra("--log_to mlflow", ("mlflow-skinny", "sqlalchemy", "alembic")),
    "trackio": Extra("--log_to trackio", ("trackio",)),
    "mindspore": Extra("export to MINDIR and AIR, and use of MINDIR files", ("mindspore",)),
}

# Module -> the package that has it, where they are called differently.
_PACKAGES = {
    "PIL": "pillow",
    "yaml": "PyYAML",
    "mlflow": "mlflow-skinny",
    "google": "protobuf",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def normalised(package: str) -> str:
    """A package's name as it is compared: PEP 503."""
    return re.sub(r"[-_.]+", "-", package).lower()


def package_of(module: str) -> str:
    """What pip calls the package of a top-level module, normalised."""
    return normalised(_PACKAGES.get(module, module))


def install_command(module: str) -> str:
    """What installs a top-level module: the extra that brings it, or its package where none does."""
    package = package_of(module)
    for name, extra in EXTRAS.items():
        if package in map(normalised, extra.packages):
            return f"pip install 'convmixer[{name}]'"
    return f"pip install {package}"


def missing_package(
    subject: str, error: ImportError, *, extra: str | None = None, otherwise: str = ""
) -> UserError | None:
    """The UserError of a package that `subject` needs; None where a module of ours is missing, which is a bug.

    `extra`: of ours, that brings all that the subject needs; `otherwise`: what works without, to end the line with.
    """
    module = (error.name or "").partition(".")[0]
    if module in ("", "convmixer"):
        return None
    if not isinstance(error, ModuleNotFoundError):
        return UserError(
            f"{subject} needs {module}, which is installed, but cannot be imported: {first_line(error)}\n"
            "`convmixer doctor` tells more."
        )
    if error.name != module and find_spec(module) is not None:
        # As where onnxscript is too old for a torch: pip would find the extra installed.
        upgrade = f"pip install --upgrade {package_of(module)}"
        return UserError(f"{subject} needs {error.name}, which the installed {module} does not have: {upgrade}")
    install = install_command(module) if extra is None else f"pip install 'convmixer[{extra}]'"
    hint = f"; {otherwise}" if otherwise else ""
    return UserError(f"{subject} needs {module}, which is not installed: {install}{hint}")


@contextmanager
def needed_for(subject: str, *, extra: str | None = None, otherwise: str = "") -> Iterator[None]:
    """What is imported here, or within a function that this decorates, is what `subject` needs.

    Raises what `missing_package` makes of an import that fails.
    """
    try:
        yield
    except ImportError as error:
        user_error = missing_package(subject, error, extra=extra, otherwise=otherwise)
        if user_error is None:
            raise
        raise user_error from None
