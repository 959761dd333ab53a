"""Arguments of the functions in Python, as the options of a command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convmixer.config.command import Command
from convmixer.config.loading import resolve
from convmixer.config.resolved import ARGUMENT, Resolved

if TYPE_CHECKING:
    from convmixer.config.schema import Config

PathLike = str | os.PathLike[str]


def resolved_arguments(command: Command, arguments: Mapping[str, Any], recipe: PathLike | None = None) -> Resolved[Any]:
    """The options of a command from the arguments of a function; paths may be of any kind.

    Raises UserError for an unknown name or a value out of bounds.
    """
    given = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in arguments.items()}
    return resolve(command, given, None if recipe is None else os.fspath(recipe), ARGUMENT)


def given_to(config: Config | None) -> dict[str, Any]:
    """The options that a configuration was made with, in the order of their declaration; its defaults are left out."""
    if config is None:
        return {}
    return {name: getattr(config, name) for name in type(config).model_fields if name in config.model_fields_set}
