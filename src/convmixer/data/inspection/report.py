"""What an inspection found, as one record that text, JSON and HTML are written from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from convmixer.data.inspection.findings import FileReports, Finding, judge
from convmixer.data.inspection.scan import scan
from convmixer.data.inspection.splits import Split
from convmixer.data.limits import MAX_PIXELS
from convmixer.printable import printable

FORMAT = 1
_SHOWN = 10  # cases of a category in the text; JSON has all


@dataclass(frozen=True)
class DatasetReport:
    """A data set, what was found in each file of each split, and what is wrong with it (nothing: it is clean)."""

    data: str
    splits: tuple[Split, ...]
    file_reports: FileReports
    findings: tuple[Finding, ...]

    @property
    def images(self) -> int:
        return sum(len(split.paths) for split in self.splits)

    @property
    def size(self) -> int:
        """Bytes of all image files."""
        return sum(file.size for reports in self.file_reports for file in reports)

    def formats(self) -> dict[str, int]:
        """Number of images of each format, most common first; those of none are left out."""
        return _ordered(Counter(file.format for reports in self.file_reports for file in reports if file.format))

    def sides(self) -> dict[str, list[int]]:
        """Minimum, median and maximum width and height in pixels of what can be decoded; empty where nothing can."""
        decoded = [file for reports in self.file_reports for file in reports if file.error is None]
        if not decoded:
            return {}
        sides = {"width": [file.width for file in decoded], "height": [file.height for file in decoded]}
        return {name: [min(values), int(median(values)), max(values)] for name, values in sides.items()}

    def ignored(self) -> dict[str, int]:
        """Entries that are no images by their name, counted by why, most common first."""
        return _ordered(sum((split.ignored for split in self.splits), Counter()))

    def read(self, path: str) -> bytes:
        """The file of that name. Raises BadImage for what cannot be read."""
        which, index = self._places[path]
        return bytes(self.splits[which].source.read(index))

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        return {
            path: (which, index) for which, split in enumerate(self.splits) for index, path in enumerate(split.paths)
        }

    def shown(self, path: str) -> str:
        """A path as the reports have it: below the data folder without that folder's own path."""
        inside = os.path.join(self.data, "")
        return path.removeprefix(inside)


def inspect(
    data: str,
    splits: tuple[Split, ...],
    *,
    min_side: int,
    max_imbalance: float,
    workers: int,
    on_done: Callable[[int], None],
    max_pixels: int = MAX_PIXELS,
) -> DatasetReport:
    """Probe every file of the splits and judge them; the arguments are those of `judge` and `scan`."""
    file_reports = scan([split.source for split in splits], workers, on_done, max_pixels)
    findings = judge(splits, file_reports, min_side=min_side, max_imbalance=max_imbalance)
    return DatasetReport(data, splits, file_reports, tuple(findings))


def to_record(report: DatasetReport) -> dict[str, Any]:
    """All of it in plain values for JSON; paths are relative to the data folder where they lie in it."""
    return {
        "format": FORMAT,
        "data": report.data,
        "clean": not report.findings,
        "images": report.images,
        "bytes": report.size,
        "formats": report.formats(),
        "sides": report.sides(),
        "ignored": report.ignored(),
        "splits": {
            split.name: {"folder": split.folder, "images": len(split.paths), "classes": split.counts()}
            for split in report.splits
        },
        "findings": {
            finding.category: [
                {"paths": [report.shown(path) for path in item.paths], "detail": item.detail} for item in finding.items
            ]
            for finding in report.findings
        },
    }


def to_text(report: DatasetReport) -> str:
    """A page of text: what there is, and the first cases of each category."""
    lines = [f"{printable(report.data)}: {report.images:,} images, {in_bytes(report.size)}"]
    for split in report.splits:
        lines.append(f"  {split.name:<8}{len(split.paths):,} images in {len(split.classes):,} classes")
    for name, counts in (("formats", report.formats()), ("ignored", report.ignored())):
        if counts:
            lines.append(f"  {name:<8}" + ", ".join(f"{printable(key)} {count:,}" for key, count in counts.items()))
    if sides := report.sides():
        min_size, median_size, max_size = (" x ".join(map(str, pair)) for pair in zip(*sides.values(), strict=True))
        lines.append(f"  {'pixels':<8}{min_size} to {max_size}, median {median_size} (width x height)")
    for finding in report.findings:
        lines += ["", f"{finding.category}: {len(finding.items):,}; {finding.meaning}"]
        for item in finding.items[:_SHOWN]:
            paths = " = ".join(printable(report.shown(path)) for path in item.paths)
            lines.append("  " + ": ".join(filter(None, (paths, printable(item.detail)))))
        if len(finding.items) > _SHOWN:
            lines.append(f"  and {len(finding.items) - _SHOWN:,} more")
    lines += ["", verdict(report)]
    return "\n".join(lines)


def verdict(report: DatasetReport) -> str:
    """One line: clean, or how many cases of what."""
    if not report.findings:
        return "nothing wrong was found"
    return "found: " + ", ".join(f"{finding.category} {len(finding.items):,}" for finding in report.findings)


def in_bytes(count: int) -> str:
    """`218.3 MiB`."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def _ordered(counts: Counter[str]) -> dict[str, int]:
    # Equal numbers by name, so that two inspections of the same data write the same report.
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
