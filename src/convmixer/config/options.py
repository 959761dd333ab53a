"""What an option is: a typed, bounded field that carries its help, and the group that it is listed in.

A group is a pydantic model; its docstring is the group's title. Flags, help, checks, the documentation's table and the
saved configuration are all made from these fields, so that an option is declared once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from convmixer.config.paths import expanded_path
from convmixer.errors import UserError


def option(
    default: Any,
    help: str,
    *,
    flags: tuple[str, ...] = (),
    also: str | None = None,
    other_names: str = "",
    path: bool = False,
    affects_training: bool = True,
    commands: str = "train",
    secret: bool = False,
    **bounds: Any,
) -> Any:
    """A field: `help` is one line; `flags` are short forms; `also` is a second name of the same option.

    `other_names`: what other programs call it, for the hint to a user who types one of these. `path`: names a file or
    folder, so that `~` and `$NAME` in it are expanded wherever it comes from. `affects_training` False: what is learnt
    does not depend on it, so that a resumed run may have another value. `commands`: of those that take the options of
    training, the ones that use it and list it in their help. `secret`: no log shows its value.
    """
    extra: dict[str, Any] = {
        "flags": list(flags),
        "also": also,
        "other_names": other_names.split(),
        "path": path,
        "affects_training": affects_training,
        "commands": commands.split(),
        "secret": secret,
    }
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Options(BaseModel):
    """A set of options."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, value: Any, info: Any) -> Any:
        # pydantic takes True for 1: a YAML "epochs: yes" would train one epoch.
        if isinstance(value, bool) and not accepts_bool(cls.model_fields[info.field_name].annotation):
            raise ValueError(f"is {value!r}, which is no value of this option")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _as_declared(cls, value: Any, info: Any) -> Any:
        """Choices in any case, lists of them also as text, and paths expanded."""
        field = cls.model_fields[info.field_name]
        choices = choices_of(field.annotation)
        if choices and is_list(field.annotation):
            return _chosen(value, choices)
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("path"):
            parts = value if isinstance(value, list) else [value]
            paths = [expanded_path(part) if isinstance(part, str) else part for part in parts]
            return paths if isinstance(value, list) else paths[0]
        return in_declared_case(value, choices) if isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _no_endless_numbers(cls, value: Any) -> Any:
        # Python's integers have no end, those of NumPy and torch do.
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("is a number of more than 63 bits, which no option takes")
        return value


@dataclass(frozen=True)
class Option:
    """One option as the command line and the documentation see it."""

    name: str
    group: str
    help: str
    default: Any
    annotation: Any
    flags: tuple[str, ...]
    also: str | None
    bounds: tuple[str, ...]
    other_names: tuple[str, ...] = ()
    affects_training: bool = True
    commands: frozenset[str] = frozenset()
    secret: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) if self.also is None else (self.name, self.also)

    @property
    def is_switch(self) -> bool:
        return accepts_bool(self.annotation)

    @property
    def is_list(self) -> bool:
        return is_list(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        return choices_of(self.annotation)

    @property
    def is_optional(self) -> bool:
        return type(None) in _parts(self.annotation)

    @property
    def domain(self) -> str:
        """Type and bounds in words, as `integer >= 1`."""
        if self.choices:
            return " | ".join(("none", *self.choices) if self.is_list else self.choices)
        if self.is_list:
            parts = [get_args(part)[0] for part in _parts(self.annotation) if get_origin(part) is tuple]
            return "texts" if str in parts else "numbers"
        words = {bool: "true | false", int: "integer", float: "number", str: "text"}
        type_name = next(words[part] for part in _parts(self.annotation) if part in words)
        return " ".join((type_name, " and ".join(self.bounds))).strip()


def as_value_error(check: Callable[[str], Any], value: str) -> str:
    """Run a check of a text that raises UserError, where pydantic wants a ValueError."""
    try:
        check(value)
    except UserError as error:
        raise ValueError(str(error)) from None
    return value


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Members of a union, or the annotation itself."""
    is_union = get_origin(annotation) is not None and type(None) in get_args(annotation)
    return get_args(annotation) if is_union else (annotation,)


def accepts_bool(annotation: Any) -> bool:
    return bool in _parts(annotation)


def is_list(annotation: Any) -> bool:
    """Whether an option takes several values."""
    return any(get_origin(part) is tuple for part in _parts(annotation))


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The words that an option takes, or a list of which it takes; none for other options."""
    parts = [get_args(part)[0] if get_origin(part) is tuple else part for part in _parts(annotation)]
    return tuple(str(value) for part in parts for value in get_args(part) if isinstance(value, str))


def _chosen(value: Any, choices: tuple[str, ...]) -> Any:
    """Several of the choices, each once: from a list, from text as `a,b`, or from `none`."""
    if value is None or isinstance(value, str):
        value = [part.strip() for part in (value or "none").split(",")]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        return value
    parts = dict.fromkeys(in_declared_case(part, (*choices, "none")) for part in value)
    return () if list(parts) == ["none"] else tuple(parts)


def as_text(value: Any) -> str:
    """A value as it is typed: the parts of a list side by side, `none` for an empty one."""
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value) or "none"


def in_declared_case(value: str, choices: tuple[str, ...]) -> str:
    """`AdamW` as `adamw`: the choice that this is in any case; the value itself where there is none."""
    return next((choice for choice in choices if choice.lower() == value.lower()), value)


_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _bounds(info: FieldInfo) -> tuple[str, ...]:
    return tuple(
        f"{sign} {getattr(rule, name):g}"
        for rule in info.metadata
        for name, sign in _BOUNDS.items()
        if getattr(rule, name, None) is not None
    )


def _group_title(model: type[BaseModel], name: str) -> str:
    owner = next(base for base in reversed(model.__mro__) if name in getattr(base, "__annotations__", {}))
    return (owner.__doc__ or owner.__name__).strip().splitlines()[0].rstrip(".")


@cache
def options_of(model: type[Options]) -> tuple[Option, ...]:
    """The options of a model, group by group in the order of their declaration; read once, as a command asks often."""
    found = []
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        found.append(
            Option(
                name=name,
                group=_group_title(model, name),
                help=info.description or "",
                default=info.default,
                annotation=info.annotation,
                flags=tuple(extra.get("flags", ())),  # type: ignore[arg-type]
                also=extra.get("also"),  # type: ignore[arg-type]
                bounds=_bounds(info),
                other_names=tuple(extra.get("other_names", ())),  # type: ignore[arg-type]
                affects_training=bool(extra.get("affects_training", True)),
                commands=frozenset(extra.get("commands", ())),  # type: ignore[arg-type]
                secret=bool(extra.get("secret", False)),
            )
        )
    return tuple(found)
