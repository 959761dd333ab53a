"""YAML files of options: the user's by path, the shipped ones by bare name."""

from __future__ import annotations

import difflib
import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from convmixer.errors import UserError

logger = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml")
_MAX_BYTES = 1 << 16  # PyYAML needs seconds for each MiB, and with some nestings the square of that


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error, as its specification has it; PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                problem = f"{key.value} is in line {lines[key.value]} already"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def shipped_recipes() -> dict[str, Path]:
    """Name -> path of the recipes that come with the package."""
    folder = Path(str(files("convmixer"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def is_shipped(path: Path) -> bool:
    """Whether a file is one of those, by whatever path."""
    return os.path.realpath(path) in [os.path.realpath(recipe) for recipe in shipped_recipes().values()]


def find_recipe(name: str) -> Path:
    """Path of `--config NAME`: an existing file, or a shipped recipe by its bare name. Raises UserError."""
    path = Path(name)
    if path.is_file():
        return path
    recipes = shipped_recipes()
    if name in recipes:
        return recipes[name]
    near = difflib.get_close_matches(path.stem, recipes, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "shipped: " + ", ".join(recipes)
    raise UserError(f"--config: {name} is neither a file nor a shipped recipe; {hint}")


def read_recipe(path: Path) -> dict[str, Any]:
    """Options of a YAML file, as it has them. Raises UserError where it is no mapping of names to values."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: is larger than {_MAX_BYTES >> 10} KiB; a YAML file of options is expected")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; a YAML file of options is expected") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        # Of PyYAML itself: a date such as 2001-99-99, a number of thousands of digits, a thousand brackets.
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: not valid YAML: {reason}") from None
    if content is None:
        logger.warning(f"{path}: says nothing, so that every option keeps its default")
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected lines of 'option: value', found a {type(content).__name__}")
    for key, value in content.items():
        # Checked before anything quotes the value: a few lines of aliases stand for more text than any memory holds,
        # and a hexadecimal number for more digits than Python prints.
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, list | dict | set | tuple) for part in parts):
            raise UserError(f"{path}: {key}: expected a single value, or a list of single values")
        if any(isinstance(part, int) and abs(part) >= 2**63 for part in parts):
            raise UserError(f"{path}: {key}: a number of more than 63 bits, which no option takes")
    return {str(key): value for key, value in content.items()}
