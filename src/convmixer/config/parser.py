"""The command line's parser, made from the options of a command; it leaves all values as text."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from convmixer.config.command import Command, positional_dest
from convmixer.config.options import Option, as_text, options_of
from convmixer.errors import UserError


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
        if command.takes_config and "train" not in (command.name, command.listed_with)
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
            dest = positional_dest(option.name) if command.also_flag else option.name
            metavar = command.metavar(option.name)
            parser.add_argument(dest, metavar=metavar, nargs="*" if option.is_list else "?", help=option.help)
            if not command.also_flag:
                continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        _add(groups[option.group], option, command.shows(option))
    return parser


def _usage(command: Command) -> str:
    words = ["convmixer", command.name]
    lists = {option.name for option in options_of(command.model) if option.is_list}
    words += [command.metavar(name) + (" ..." if name in lists else "") for name in command.positionals]
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
