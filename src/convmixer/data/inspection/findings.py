"""From looks to findings: what is wrong with a data set, kind by kind, in the order of its files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convmixer.data.formats.kinds import FORMAT_OF_EXTENSION
from convmixer.data.inspection.probe import FileReport
from convmixer.data.inspection.splits import Split

# Kind -> what it means and what to do, in the order in which they are told.
KINDS = {
    "unreadable": "cannot be decoded; training leaves them out: delete them or fetch them again",
    "truncated": "end before their image does; training leaves them out: fetch them again or delete them",
    "mistyped": "hold another format than their name says; rename them, or convert what is not read",
    "blank": "show one colour, or nearly; what is in them may be lost by their wrapping: convert them, or delete them",
    "small": "have a side below the limit; they are enlarged: leave them out or take a smaller image_size",
    "leaking": "the same image is in training and evaluation, so that the score is too good: delete one",
    "conflicting": "the same image is in several classes: delete the wrong ones",
    "duplicate": "the same image is there more than once in a class: delete all but one",
    "classes": "training and evaluation do not have the same classes, or a class has no images",
    "imbalance": "classes are of very unequal size: add images, or judge by more than Top1-Acc",
}


@dataclass(frozen=True)
class Item:
    """One case: the files that it is about (none for a class) and what is the matter with them."""

    paths: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Finding:
    """All cases of a kind; `kind` is a key of KINDS."""

    kind: str
    items: tuple[Item, ...]

    @property
    def meaning(self) -> str:
        return KINDS[self.kind]


Looks = Sequence[Sequence[FileReport]]  # those of each split


def judge(splits: Sequence[Split], looks: Looks, *, min_side: int, max_imbalance: float) -> list[Finding]:
    """What is wrong, in the order of KINDS; empty for a clean data set.

    `splits`: the training split, and the evaluation split where there is one. `min_side`: images with a shorter side
    are small, in pixels; `max_imbalance`: how many times the smallest class the largest may have.
    """
    found: dict[str, list[Item]] = {kind: [] for kind in KINDS}
    for split, seen in zip(splits, looks, strict=True):
        for path, look in zip(split.paths, seen, strict=True):
            for kind, detail in _of_file(path, look, min_side):
                found[kind].append(Item((path,), detail))
    for kind, item in _same_images(splits, looks):
        found[kind].append(item)
    found["classes"] += _class_faults(splits)
    found["imbalance"] += _imbalance(splits[0], max_imbalance)
    return [Finding(kind, tuple(items)) for kind, items in found.items() if items]


def _of_file(path: str, look: FileReport, min_side: int) -> Iterator[tuple[str, str]]:
    extension = os.path.splitext(path)[1].lower()
    mistyped = look.format not in ("", FORMAT_OF_EXTENSION[extension])
    if mistyped:
        read = "" if look.fault is None else f": {look.fault}"
        yield "mistyped", f"{look.format} under the extension {extension}{read}"
    if look.cut:
        yield "truncated", look.fault or ""
    elif look.fault is not None and not mistyped:
        yield "unreadable", look.fault
    elif look.fault is None and min(look.width, look.height) < min_side:
        yield "small", f"{look.width} x {look.height} pixels"
    if look.blank is not None:
        yield "blank", look.blank


def _same_images(splits: Sequence[Split], looks: Looks) -> Iterator[tuple[str, Item]]:
    """Files whose decoded pixels are equal, be they the same bytes or not."""
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for which, seen in enumerate(looks):
        for index, look in enumerate(seen):
            if look.pixels:
                groups.setdefault(look.pixels, []).append((which, index))
    for members in groups.values():
        if len(members) == 1:
            continue
        paths = tuple(splits[which].paths[index] for which, index in members)
        classes = {splits[which].classes[splits[which].labels[index]] for which, index in members}
        same = "bytes" if len({looks[which][index].digest for which, index in members}) == 1 else "pixels"
        detail = f"same {same}" + (f", in {len(classes)} classes" if len(classes) > 1 else "")
        if len({which for which, _ in members}) > 1:
            yield "leaking", Item(paths, detail)
        else:
            yield "conflicting" if len(classes) > 1 else "duplicate", Item(paths, detail)


def _class_faults(splits: Sequence[Split]) -> Iterator[Item]:
    for split in splits:
        for name, count in split.counts().items():
            if count == 0:
                yield Item((), f"{split.name}: the class {name!r} has no images")
        for name, folders in zip(split.classes, split.folders, strict=True):
            if len(folders) > 1:
                detail = "folders whose names look the same (NFC and NFD); they count as one"
                yield Item((), f"{split.name}: the class {name!r} lies in {len(folders)} {detail}")
    train = splits[0].classes
    if len(train) == 1:
        yield Item((), f"{splits[0].name}: there is a single class, {train[0]!r}; it takes two")
    for split in splits[1:]:
        for name in sorted(set(train) - set(split.classes)):
            yield Item((), f"{split.name}: the class {name!r} is missing")
        for name in sorted(set(split.classes) - set(train)):
            near = difflib.get_close_matches(name, train, n=1, cutoff=0.7)
            hint = f"; is it {near[0]!r}?" if near else ""
            yield Item((), f"{split.name}: the class {name!r} is not among those of training{hint}")


def _imbalance(train: Split, limit: float) -> Iterator[Item]:
    counts = {name: count for name, count in train.counts().items() if count}
    most = max(counts.values(), default=0)
    for name, count in sorted(counts.items(), key=lambda entry: entry[1]):
        if most > limit * count:
            yield Item(
                (), f"{train.name}: the class {name!r} has {count} images, the largest {most / count:.1f} times as many"
            )
