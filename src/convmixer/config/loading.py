"""From command line and YAML to checked options: defaults < YAML < command line, with where each value came from.

The defaults are ours, or with `--defaults model_zoo` the model zoo's where it has others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from convmixer.config.command import Command, positional_dest
from convmixer.config.meant import Meant
from convmixer.config.model_zoo import defaults_for
from convmixer.config.options import Option, Options, options_of
from convmixer.config.parser import build_parser
from convmixer.config.paths import expanded_path
from convmixer.config.recipes import find_recipe, read_recipe
from convmixer.config.resolved import ARGUMENT, COMMAND_LINE, DEFAULT, MODEL_ZOO_DEFAULT, Resolved, Saved
from convmixer.errors import UserError

T = TypeVar("T", bound=Options)

_BOOLEANS = {"true", "false", "yes", "no", "on", "off", "1", "0"}


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
        if positional_dest(name) in given:
            if name in given:
                raise UserError(f"{given[positional_dest(name)]!r} and --{name} are the same option; leave one out")
            given[name] = given.pop(positional_dest(name))
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
    saved = command.saved(explicit) if recipe is None else None
    if saved is not None:
        return _resume(command, explicit, saved, options, origin, argv)
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


def _resume(
    command: Command,
    explicit: Mapping[str, Any],
    saved: Saved,
    options: Mapping[str, Option],
    origin: str,
    argv: Sequence[str],
) -> Resolved[Any]:
    """The options of an earlier run as it had them, with what is given now over them."""
    before = _from_yaml(saved.values, options, "the options of the run", Meant(command))
    origins = {option.name: saved.origins.get(option.name, DEFAULT) for option in options.values()}
    origins |= dict.fromkeys(explicit, origin)
    together = before | {**explicit, "resume": before["resume"]}
    checked = _checked(command.model, together, origins)
    return Resolved(checked, origins, saved.recipe, tuple(argv), recipe_named=saved.recipe_named, goes_on=True)


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
    is_positional_list = option.is_list and option.name in command.positionals
    if (value == "" and option.default != "") or (is_positional_list and "" in value):
        # An unset variable of a shell: as a path it would mean the current folder.
        raise UserError(f"{command.named(option.name)}: is empty")
    if is_positional_list:
        return value  # paths, which may have commas
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
