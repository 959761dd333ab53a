"""Evaluation images that are held out of a set which has none of its own: by class, by seed, without duplicates.

Which images they are is decided by their names below the data folder, so that neither its place nor the order of
reading matters, and is written into the run as `split.csv`: images that come to the folder later change nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.data.folders import Files
from convmixer.data.limits import BadImage
from convmixer.data.paths import start_of_names
from convmixer.data.source import Source, Subset
from convmixer.errors import RUN_FAILED, UserError

RECORD = "split.csv"
FRACTION = 0.2  # where the user does not say
_EDGE = 4096  # bytes at either end of a file that tell most files of one size apart
_THREADS = 8


@dataclass(frozen=True)
class HeldOut:
    """A set in two parts. `is_val`: bool [n]; `names`: of its images, below the data folder; `fraction` and `seed`:
    what was asked for."""

    source: Source
    names: tuple[str, ...]
    is_val: np.ndarray
    fraction: float
    seed: int

    @cached_property
    def train(self) -> Subset:
        return Subset(self.source, np.flatnonzero(~self.is_val))

    @cached_property
    def val(self) -> Subset:
        val = Subset(self.source, np.flatnonzero(self.is_val))
        val.ignored = {}  # said of the other part already
        return val

    def csv(self) -> bytes:
        """The record: path, label and split of each image."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        classes = self.source.classes.names
        for name, label, is_val in zip(self.names, self.source.labels.tolist(), self.is_val.tolist(), strict=True):
            writer.writerow((name, classes[label], "val" if is_val else "train"))
        return file.getvalue().encode("utf-8", "surrogateescape")

    def facts(self) -> dict[str, float | int | str]:
        """What weights say of it: enough to make it again, and to know whether it is the same."""
        held = sorted(name for name, is_val in zip(self.names, self.is_val.tolist(), strict=True) if is_val)
        digest = hashlib.sha256("\0".join(held).encode("utf-8", "surrogateescape")).hexdigest()
        return {"val_fraction": self.fraction, "seed": self.seed, "sha256": digest}


def hold_out(
    source: Source, folder: str | None, fraction: float, seed: int, record: Mapping[str, bool] | None = None
) -> HeldOut:
    """Hold `fraction` of each class out, at least one image of a class that has two, and all copies of an image
    together.

    `folder`: where the data are, which names are taken relative to. `record`: an earlier split by those names, which
    holds for the images in it; others are for training. Raises UserError (exit 1) where a part would be empty.
    """
    names = _names_below(source, folder)
    if record is not None:
        is_val = np.array([record.get(name, False) for name in names], dtype=bool)
    else:
        is_val = _chosen(source, names, fraction, seed)
    if is_val.all() or not is_val.any():
        raise UserError(
            f"--val_fraction: {fraction:g} of {len(source)} images leaves no "
            f"{'training' if is_val.all() else 'evaluation'} images; each class needs two",
            exit_code=RUN_FAILED,
        )
    return HeldOut(source, names, is_val, fraction, seed)


def record_beside(path: Path) -> Path | None:
    """The record of the run that a weight file, a checkpoint or a folder of a run belongs to."""
    places = (path, path.parent, path.parent.parent)
    return next((place / RECORD for place in places if (place / RECORD).is_file()), None)


def read_record(path: Path) -> dict[str, bool]:
    """Name -> whether it is held out, of a `split.csv`. Raises UserError for what is none."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return {row["path"]: {"val": True, "train": False}[row["split"]] for row in rows}
    except (OSError, csv.Error, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no list of path, label and split"
        raise UserError(f"{path}: cannot be used: {reason}", exit_code=RUN_FAILED) from None


def held_out_part(
    source: Source, folder: str | None, weights: Path | None, facts: Mapping[str, Any], say: Callable[[str], None]
) -> Source:
    """Of a set without evaluation images those that a model has not learnt from: all of a set that it was not trained
    on, else what was held out then.

    `weights`: the model's file, beside which the record is looked for; `facts`: what it says of its run.
    """
    names = _names_below(source, folder)
    path = None if weights is None else record_beside(weights)
    record = {} if path is None else read_record(path)
    if any(name in record for name in names):
        later = sum(name not in record for name in names)
        told = f"; {later} images are not in it and are left out" if later else ""
        say(f"evaluated on the images that {path} holds out{told}")
        return Subset(source, np.flatnonzero([record.get(name, False) for name in names]))
    said = facts.get("held_out")
    if isinstance(said, dict) and {"val_fraction", "seed"} <= said.keys():
        try:
            again = hold_out(source, folder, float(said["val_fraction"]), int(said["seed"]))
        except (TypeError, ValueError, UserError):
            again = None
        if again is not None and again.facts() == said:
            say(f"evaluated on the {len(again.val)} images that were held out when the weights were trained")
            return again.val
        say(
            "the weights were trained on a part of a folder; if it was this one, changed since, images that they have "
            f"learnt from count too: copy {RECORD} of their run beside them"
        )
    say("there are no evaluation images apart from others: all are evaluated")
    return source


def recorded_part(source: Source, folder: str | None, path: Path, *, train: bool) -> Source:
    """Of the images those that a record has in that part; all where it has none of them."""
    record, names = read_record(path), _names_below(source, folder)
    chosen = np.flatnonzero([name in record and record[name] != train for name in names])
    return Subset(source, chosen) if len(chosen) else source


def _names_below(source: Source, folder: str | None) -> tuple[str, ...]:
    start = start_of_names(folder)
    return tuple(source.name(index).removeprefix(start).replace(os.sep, "/") for index in range(len(source)))


def _chosen(source: Source, names: tuple[str, ...], fraction: float, seed: int) -> np.ndarray:
    """bool [n]: class by class, groups of copies in the order of a hash of their first name until there are enough."""
    groups = _copies(source)
    labels, is_val = source.labels, np.zeros(len(source), dtype=bool)
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for group in groups:
        # Copies under two labels are for training, where check-data finds them.
        if len({int(labels[index]) for index in group}) == 1:
            by_class[int(labels[group[0]])].append(group)
    sizes = np.bincount(labels)
    for label, members in by_class.items():
        wanted = max(round(fraction * int(sizes[label])), 1) if len(members) > 1 else 0
        taken = 0
        for group in sorted(members, key=lambda group: _key(min(names[index] for index in group), seed)):
            if taken < wanted and (taken == 0 or taken + len(group) <= wanted) and taken + len(group) < sizes[label]:
                is_val[group] = True
                taken += len(group)
    return is_val


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()


def _copies(source: Source) -> list[list[int]]:
    """The images in groups of equal content, mostly of one. Of files only those of equal size are read."""
    indices = list(range(len(source)))
    if not isinstance(source, Files):
        return _split_by([indices], lambda index: _digest(_content(source, index)))
    paths = [source.name(index) for index in indices]
    groups = _split_by([indices], lambda index: _size(paths[index]))
    groups = _split_by(groups, lambda index: _digest(_edges(paths[index])))
    return _split_by(groups, lambda index: _digest(_content(source, index)))


def _split_by(groups: Iterable[list[int]], key: Callable[[int], object]) -> list[list[int]]:
    """The groups of more than one, split by a key of their members."""
    found: list[list[int]] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="split") as pool:
        for group in groups:
            if len(group) == 1:
                found.append(group)
                continue
            parts: dict[object, list[int]] = defaultdict(list)
            for index, value in zip(group, pool.map(key, group), strict=True):
                parts[value].append(index)
            found.extend(parts.values())
    return found


def _digest(content: bytes | None) -> object:
    """None, for what cannot be read, is like nothing else."""
    return object() if content is None else hashlib.sha256(content).digest()


def _content(source: Source, index: int) -> bytes | None:
    try:
        content = source.read(index)
    except (BadImage, OSError):
        return None
    return content if isinstance(content, bytes) else content.tobytes() + repr(content.shape).encode()


def _size(path: str) -> object:
    try:
        return os.path.getsize(path)
    except OSError:
        return object()


def _edges(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            head = file.read(_EDGE)
            file.seek(max(os.path.getsize(path) - _EDGE, 0))
            return head + file.read(_EDGE)
    except OSError:
        return None
