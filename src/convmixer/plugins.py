"""Parts of the program that are a file each in a folder of theirs: to add one is to add a file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).parent


def names_in(package: str) -> tuple[str, ...]:
    """The names of the modules in a package of ours, as `data.sources`, in alphabetical order; none is imported."""
    folder = _ROOT.joinpath(*package.split("."))
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


def module_of(package: str, name: str) -> ModuleType:
    """The module of that name."""
    return import_module(f"convmixer.{package}.{name}")
