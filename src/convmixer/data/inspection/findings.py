"""From file reports to findings: what is wrong with a data set, category by category, in the order of its files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convmixer.data.formats.signatures import FORMAT_OF_EXTENSION
from convmixer.data.inspection.probe import FileReport
from convmixer.data.inspection.splits import Split

# Category -> what it means and what to do, in the order in which they are reported.
CATEGORIES = {
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
    """All cases of a category; `category` is a key of CATEGORIES."""

    category: str
    items: tuple[Item, ...]

    @property
    def meaning(self) -> str:
        return CATEGORIES[self.category]


FileReports = Sequence[Sequence[FileReport]]  # those of each split


def judge(splits: Sequence[Split], file_reports: FileReports, *, min_side: int, max_imbalance: float) -> list[Finding]:
    """What is wrong, in the order of CATEGORIES; empty for a clean data set.

    `splits`: the training split, and the evaluation split where there is one. `min_side`: images with a shorter side
    are small, in pixels; `max_imbalance`: how many times the smallest class the largest may have.
    """
    found: dict[str, list[Item]] = {category: [] for category in CATEGORIES}
    for split, reports in zip(splits, file_reports, strict=True):
        for path, report in zip(split.paths, reports, strict=True):
            for category, detail in _of_file(path, report, min_side):
                found[category].append(Item((path,), detail))
    for category, item in _same_images(splits, file_reports):
        found[category].append(item)
    found["classes"] += _class_items(splits)
    found["imbalance"] += _imbalance(splits[0], max_imbalance)
    return [Finding(category, tuple(items)) for category, items in found.items() if items]


def _of_file(path: str, report: FileReport, min_side: int) -> Iterator[tuple[str, str]]:
    extension = os.path.splitext(path)[1].lower()
    mistyped = report.format not in ("", FORMAT_OF_EXTENSION.get(extension, report.format))
    if mistyped:
        read = "" if report.error is None else f": {report.error}"
        yield "mistyped", f"{report.format} under the extension {extension}{read}"
    if report.truncated:
        yield "truncated", report.error or ""
    elif report.error is not None and not mistyped:
        yield "unreadable", report.error
    elif report.error is None and min(report.width, report.height) < min_side:
        yield "small", f"{report.width} x {report.height} pixels"
    if report.blank is not None:
        yield "blank", report.blank


def _same_images(splits: Sequence[Split], file_reports: FileReports) -> Iterator[tuple[str, Item]]:
    """Files whose decoded pixels are equal, be they the same bytes or not."""
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for which, reports in enumerate(file_reports):
        for index, report in enumerate(reports):
            if report.pixels:
                groups.setdefault(report.pixels, []).append((which, index))
    for members in groups.values():
        if len(members) == 1:
            continue
        paths = tuple(splits[which].paths[index] for which, index in members)
        classes = {splits[which].classes[splits[which].labels[index]] for which, index in members}
        same = "bytes" if len({file_reports[which][index].digest for which, index in members}) == 1 else "pixels"
        detail = f"same {same}" + (f", in {len(classes)} classes" if len(classes) > 1 else "")
        if len({which for which, _ in members}) > 1:
            yield "leaking", Item(paths, detail)
        else:
            yield "conflicting" if len(classes) > 1 else "duplicate", Item(paths, detail)


def _class_items(splits: Sequence[Split]) -> Iterator[Item]:
    for split in splits:
        for name, count in split.counts().items():
            if count == 0:
                yield Item((), f"{split.name}: the class {name!r} has no images")
        for name, folders in zip(split.classes, split.folders, strict=False):
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
    max_count = max(counts.values(), default=0)
    for name, count in sorted(counts.items(), key=lambda entry: entry[1]):
        if max_count > limit * count:
            ratio = f"the largest {max_count / count:.1f} times as many"
            yield Item((), f"{train.name}: the class {name!r} has {count} images, {ratio}")
