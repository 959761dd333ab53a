"""Checked options together with where each came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from convmixer.config.options import Options

# Where a value came from, unless from a YAML file, which is then named by its path.
COMMAND_LINE = "command line"
ARGUMENT = "argument"  # of a function in Python
DEFAULT = "default"
MODEL_ZOO_DEFAULT = "model zoo's default"

T = TypeVar("T", bound=Options)


@dataclass(frozen=True)
class Saved:
    """Options that an earlier run has saved: their values and where they came from then, and its recipe."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    recipe: str | None
    recipe_named: bool


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """Checked options, the source of each, and the YAML file's path.

    A source is `default`, `model zoo's default`, a file's path, or `command line`. `recipe_named`: the user named that
    file; else the command chose it. `goes_on`: they are those that an earlier run has saved.
    """

    options: T
    origins: Mapping[str, str]
    recipe: str | None = None
    argv: Sequence[str] = field(default=())
    recipe_named: bool = False
    goes_on: bool = False

    def changed(self, values: Mapping[str, Any], origin: str) -> Resolved[T]:
        """The options with these values, which come from `origin`."""
        options = self.options.model_copy(update=dict(values))
        return replace(self, options=options, origins={**self.origins, **dict.fromkeys(values, origin)})

    def is_explicit(self, name: str) -> bool:
        """True where the user gave this option on the command line, or as an argument in Python."""
        return self.origins[name] in (COMMAND_LINE, ARGUMENT)

    def is_default(self, name: str) -> bool:
        """True where neither command line nor YAML file has this option."""
        return self.origins[name] in (DEFAULT, MODEL_ZOO_DEFAULT)

    def explicit(self, name: str) -> Any:
        """The option's value where the user gave it, on the command line or in a recipe that they named; else None."""
        named = self.recipe_named and not self.is_default(name)
        return getattr(self.options, name) if named or self.is_explicit(name) else None
