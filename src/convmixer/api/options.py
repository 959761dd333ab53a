"""Arguments of the functions in Python, as the options of a command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from convmixer.config.loading import ARGUMENT, Command, Resolved, resolve

PathLike = str | os.PathLike[str]


def resolved_arguments(command: Command, arguments: Mapping[str, Any], recipe: PathLike | None) -> Resolved[Any]:
    """The options of a command from the arguments of a function; paths may be of any kind.

    Raises UserError for an unknown name or a value out of bounds.
    """
    given = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in arguments.items()}
    return resolve(command, given, None if recipe is None else os.fspath(recipe), ARGUMENT)
