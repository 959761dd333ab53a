"""Where an exported file or folder goes, and how it comes there as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from convmixer.errors import UserError
from convmixer.exporters.format import Format

# In a folder that export wrote: {"files": {name: SHA-256}}, by which it may be replaced.
MARK = "export.json"


def target_of(output: str | None, name: str, form: Format) -> Path:
    """What is to be written, of a network of that name.

    `output` may be the file, or the folder for it; of a format that is a folder it is that folder. Raises UserError for
    another ending, for a parent that is not there, for a part that would replace a file of no earlier export, and for a
    folder that holds what export did not write.
    """
    if form.model is not None:
        target = Path(output or name + form.suffix)
        _check_folder(target)
    else:
        target = Path(output or "")
        if target.is_dir():
            target /= name + form.suffix
        if not target.name.endswith(form.suffix):
            raise UserError(f"--output: {output} must be a folder, or end in {form.suffix}")
    if not target.parent.is_dir():
        raise UserError(f"--output: there is no folder {target.parent}")
    for part in (form.part(target, ending) for ending in form.parts):
        if part.exists() and not target.exists():
            raise UserError(f"--output: {target.name} brings {part.name}, and another file has that name; rename one")
    return target


def _check_folder(target: Path) -> None:
    """Only an empty folder, or one that is as an export left it, may be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise UserError(f"--output: {target} is there, and no folder; name another")
    if Path.cwd().is_relative_to(target.resolve()):
        raise UserError(f"--output: {target} is the folder that this runs in; name another")
    if (changed := _not_of_export(target)) is not None:
        raise UserError(f"--output: {target} holds {changed}, which no export left there so; name another folder")


def _not_of_export(folder: Path) -> str | None:
    """The first entry that is not as the mark says, or None."""
    try:
        marked = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        marked = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (path.is_file() and name != MARK and marked.get(name) != _digest(path)):
            return name
    return None if marked or not any(folder.iterdir()) else MARK


def _mark(folder: Path) -> None:
    """Leave the names and the SHA-256 of all files in the folder."""
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MARK).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(folder: Path, target: Path, form: Format) -> None:
    """Move what was proven in `folder` to its place, what stands beside it first. Raises OSError.

    Where it has parts an old one is removed before: with new parts it would answer wrongly, should this stop between.
    """
    made = folder / target.name
    if form.parts:
        target.unlink(missing_ok=True)
    for entry in sorted(entry for entry in folder.iterdir() if entry != made):
        if entry.is_dir():
            shutil.rmtree(target.with_name(entry.name), ignore_errors=True)
        os.replace(entry, target.with_name(entry.name))
    if form.model is not None:
        _mark(made)
    if form.model is not None and target.is_dir():
        # A folder cannot take the place of one that is not empty.
        old = folder / f"{target.name}.old"
        os.replace(target, old)
        try:
            os.replace(made, target)
        except OSError:
            with suppress(OSError):
                os.replace(old, target)
            raise
    else:
        os.replace(made, target)
