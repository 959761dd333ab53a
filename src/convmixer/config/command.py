"""What a command line is: its name, its options, what stands on it without a flag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from convmixer.config.options import Option, Options
from convmixer.config.resolved import Saved


@dataclass(frozen=True)
class Command:
    """A command line: its name, its sentence, its options, and what stands on it without a flag (`positional`: names,
    as `data out`).

    `also_flag`: it may be given by its flag as well.

    One that takes a configuration accepts all options of training, so that its recipes and command lines can be given;
    those that it does not use are left out of its help.
    """

    name: str
    help: str
    model: type[Options]
    positional: str | None = None
    also_flag: bool = False
    takes_config: bool = False
    # Whose options the help lists beside its own.
    listed_with: str | None = None
    # Names the recipe that is used where `--config` is left out, by what else was given.
    default_recipe: Callable[[Mapping[str, Any]], str | None] = lambda given: None
    # The options of an earlier run that what was given goes on with, in place of a recipe's.
    saved: Callable[[Mapping[str, Any]], Saved | None] = lambda given: None

    @property
    def positionals(self) -> tuple[str, ...]:
        return tuple((self.positional or "").split())

    def named(self, name: str) -> str:
        """An option as messages name it."""
        return name.upper() if name in self.positionals and not self.also_flag else f"--{name}"

    def metavar(self, name: str) -> str:
        """What the help calls a word that stands without a flag."""
        return "FOLDER" if name == "data_url" else name.upper()

    def shows(self, option: Option) -> bool:
        """Whether the help lists the option."""
        return not self.takes_config or bool({self.name, self.listed_with} & option.commands)


def positional_dest(name: str) -> str:
    """Where the parser puts an option that stood without its flag."""
    return f"{name} without its flag"
