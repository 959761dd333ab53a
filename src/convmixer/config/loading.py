"""From command line and YAML to checked options: defaults < YAML < command line, with where each value came from.

The defaults are ours, or with `--defaults model_zoo` the model zoo's where it has others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from convmixer.config.meant import Meant
from convmixer.config.model_zoo import defaults_for
from convmixer.config.options import Option, Options, as_text, expanded_path, options_of
from convmixer.config.recipes import find_recipe, read_recipe
from convmixer.config.resolved import ARGUMENT, COMMAND_LINE, DEFAULT, MODEL_ZOO_DEFAULT, Resolved
from convmixer.errors import UserError

T = TypeVar("T", bound=Options)

_BOOLEANS = {"true", "false", "yes", "no", "on", "off", "1", "0"}


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
    # Names the recipe that is used where `--config` is left out, by what else was given.
    default_recipe: Callable[[Mapping[str, Any]], str | None] = lambda given: None

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
        return not self.takes_config or self.name in option.commands


def _positional(name: str) -> str:
    return f"{name} without its flag"


class _Parser(argparse.ArgumentParser):
    """argparse that raises UserError where it would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def build_parser(command: Command) -> argparse.ArgumentParser:
    """The parser of a command, its options in their groups, all values left as text."""
    parser = _Parser(
        prog=f"convmixer {command.name}",
        usage=_usage(command),
        description=command.help,
        epilog="Training's other options are accepted, so that its recipes can be given."
        if command.takes_config and command.name != "train"
        else None,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
    )
    if command.takes_config:
        parser.add_argument("--config", metavar="FILE", help="YAML file of options, or the name of a shipped recipe")
    groups: dict[str, Any] = {}
    for option in options_of(command.model):
        if option.name in command.positionals:
            dest = _positional(option.name) if command.also_flag else option.name
            metavar = command.metavar(option.name)
            parser.add_argument(dest, metavar=metavar, nargs="?", help=option.help)
            if not command.also_flag:
                continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        _add(groups[option.group], option, command.shows(option))
    return parser


def _usage(command: Command) -> str:
    words = ["convmixer", command.name]
    words += [command.metavar(name) for name in command.positionals]
    if command.takes_config:
        words.append("[--config FILE]")
    return " ".join([*words, "[--option value ...]"])


def _add(group: Any, option: Option, is_shown: bool) -> None:
    default = "" if option.default is None or option.default == "" else f", default {as_text(option.default)}"
    text = f"{option.help} [{option.domain}{default}]".replace("%", "%%")
    group.add_argument(
        *option.flags,
        *(f"--{name}" for name in option.names),
        dest=option.name,
        metavar="X",
        nargs="+" if option.is_list else None,
        help=text if is_shown else argparse.SUPPRESS,
    )


def parse(command: Command, argv: Sequence[str]) -> Resolved[Any]:
    """Options of a command line.

    Raises UserError for an unknown or misspelt option, a value out of bounds, or a YAML file that cannot be used.
    """
    parser = build_parser(command)
    meant = Meant(command)
    options = {name: option for option in options_of(command.model) for name in option.names}
    namespace, rest = parser.parse_known_args(_spelled_out(argv, options, meant))
    if rest:
        meant.refuse(rest[0])
    given = vars(namespace)
    recipe = given.pop("config", None)
    for name in command.positionals if command.also_flag else ():
        if _positional(name) in given:
            if name in given:
                raise UserError(f"{given[_positional(name)]!r} and --{name} are the same option; leave one out")
            given[name] = given.pop(_positional(name))
    given = {name: _from_text(options[name], value, command) for name, value in given.items()}
    return resolve(command, given, recipe, COMMAND_LINE, argv)


def resolve(
    command: Command, given: Mapping[str, Any], recipe: str | None, origin: str, argv: Sequence[str] = ()
) -> Resolved[Any]:
    """Options of a command from those that were `given`, by `origin`, over a recipe's and the defaults.

    Raises UserError as `parse`.
    """
    meant = Meant(command)
    options = {name: option for option in options_of(command.model) for name in option.names}
    for name in given:
        if name not in options:
            raise UserError(f"unknown option {name}; {meant.hint(name)}")
    explicit = {options[name].name: value for name, value in given.items()}
    named = recipe is not None
    if recipe is None:
        recipe = command.default_recipe(explicit)
    path = _recipe_path(recipe) if recipe is not None else None
    from_file = _from_yaml(read_recipe(path), options, str(path), meant) if path is not None else {}
    together = from_file | explicit
    zoo_defaults = defaults_for(together) if command.takes_config else {}
    origins = {option.name: DEFAULT for option in options.values()} | dict.fromkeys(zoo_defaults, MODEL_ZOO_DEFAULT)
    origins |= dict.fromkeys(from_file, str(path)) | dict.fromkeys(explicit, origin)
    return Resolved(
        _checked(command.model, zoo_defaults | together, origins),
        origins,
        str(path) if path is not None else None,
        tuple(argv),
        recipe_named=named,
    )


def _recipe_path(recipe: str) -> Path:
    try:
        return find_recipe(expanded_path(recipe))
    except ValueError as error:
        raise UserError(f"--config: {error}") from None


def _spelled_out(argv: Sequence[str], options: Mapping[str, Option], meant: Meant) -> list[str]:
    """`--base-lr` to `--base_lr`, and a switch alone to `--switch=true`, so that it never swallows what follows."""
    words, out = list(argv), list[str]()
    switches = {flag: option.name for option in options.values() if option.is_switch for flag in option.flags}
    while words:
        word = words.pop(0)
        if word == "--":
            return [*out, word, *words]
        meant.refuse_typographic(word)
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if name in options:  # another name is quoted as it was typed
                if options[name].is_switch and not sign:
                    sign, value = "=", words.pop(0) if words and words[0].lower() in _BOOLEANS else "true"
                word = f"--{name}{sign}{value}"
        elif word in switches:
            word = f"--{switches[word]}=true"
        out.append(word)
    return out


def _from_text(option: Option, value: Any, command: Command) -> Any:
    if value == "" and option.default != "":
        # An unset variable of a shell: as a path it would mean the current folder.
        raise UserError(f"{command.named(option.name)}: is empty")
    if option.is_list:
        return [part for text in value for part in text.split(",") if part]
    return None if option.is_optional and str(value).lower() in ("none", "null") else value


def _from_yaml(content: Mapping[str, Any], options: Mapping[str, Option], path: str, meant: Meant) -> dict[str, Any]:
    for key in content:
        if key not in options:
            raise UserError(f"{path}: unknown option {key}; {meant.hint(key)}")
        if any(other in content for other in options[key].names if other != key):
            raise UserError(f"{path}: {' and '.join(options[key].names)} are one option; leave one of them out")
    return {options[key].name: value for key, value in content.items()}


def _checked(model: type[T], values: Mapping[str, Any], origins: Mapping[str, str]) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = {COMMAND_LINE: f"--{name}", ARGUMENT: name}.get(origins[name], f"{origins[name]}: {name}")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{where}: {_words(first)}{more}") from None


def _words(error: Any) -> str:
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return text
    return f"{text.replace('Input should', 'should')}, not {error['input']!r}"
