"""What a user meant by a name that is no option: the nearest one, or the one that other programs call so."""

from __future__ import annotations

import difflib
import unicodedata
from typing import NoReturn

from convmixer.config.command import Command
from convmixer.config.options import options_of
from convmixer.errors import UserError

_OTHER_NAMES_OF_CONFIG = "c cfg yaml recipe config_file config_path"


class Meant:
    """The names of a command's options, and what may be taken for them."""

    def __init__(self, command: Command) -> None:
        self._positionals = () if command.also_flag else command.positionals
        options = options_of(command.model)
        self._names = {name: option.name for option in options for name in option.names}
        self._other: dict[str, str] = {}
        # Of two options with such a name the first one wins, and what help lists before what is only accepted.
        for option in sorted(options, key=lambda option: not command.shows(option)):
            for other in option.other_names:
                self._other.setdefault(other, option.name)
        if command.takes_config:
            self._names["config"] = "config"
            for other in _OTHER_NAMES_OF_CONFIG.split():
                self._other.setdefault(other, "config")

    def refuse(self, word: str) -> NoReturn:
        """For a word of the command line that no option takes."""
        if not word.startswith("-"):
            raise UserError(f"unexpected argument {word!r}; see --help")
        raise UserError(
            f"unknown option {word.partition('=')[0]}; {self.hint(word.lstrip('-').partition('=')[0], '--')}"
        )

    def refuse_typographic(self, word: str) -> None:
        """Raise UserError for an option behind a dash of a word processor, as in \u2013epochs."""
        rest = word.lstrip("-\u2212" + _DASHES)
        name = rest.partition("=")[0].replace("-", "_")
        if not word[:2].isascii() and word != rest and (name in self._names or name in self._other):
            raise UserError(
                f"{word.partition('=')[0]}: begins with {unicodedata.name(_first_odd(word))}, not with --; "
                + self.hint(name, "--")
            )

    def hint(self, name: str, prefix: str = "") -> str:
        """A question with the nearest option, or where help is to be found."""
        near = self._nearest(name.lower().replace("-", "_"))
        if near is None:
            return "see --help for the options"
        if near in self._positionals:
            return f"{near.upper()} stands without a flag"
        return f"did you mean {prefix}{near}?"

    def _nearest(self, name: str) -> str | None:
        if name in self._names:
            return name
        if name in self._other:
            return self._other[name]
        if len(name) > 2:
            longer = [known for known in self._names if known.startswith(name)]
            if longer:
                return longer[0]
        near = difflib.get_close_matches(name, self._names, n=1, cutoff=0.5)
        return near[0] if near else None


_DASHES = "".join(chr(code) for code in range(0x2010, 0x2016))


def _first_odd(word: str) -> str:
    return next(letter for letter in word if not letter.isascii())
