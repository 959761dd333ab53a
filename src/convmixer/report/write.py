"""Making reports: of a run into its summary, of several runs into a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convmixer.errors import first_line
from convmixer.printable import printable
from convmixer.report.curves import charts_of, compared, png
from convmixer.report.data import findings, open_run
from convmixer.report.gallery import as_data, hits, pictures, surest_mistakes
from convmixer.report.page import reliability_of, run_page, runs_page
from convmixer.runs.durable import write_file
from convmixer.runs.first_batch import BATCH_PICTURE, BATCH_RECORD
from convmixer.runs.record import RunRecord

logger = logging.getLogger(__name__)

REPORT = "report.html"


def write_report(record: RunRecord) -> Path:
    """`report.html` and the curves as PNG files in the run's summary. Raises OSError where the disk refuses."""
    charts = charts_of(record.lines("train"), record.lines("eval"))
    found = record.predictions
    for chart in [*charts, *([reliability_of(found)] if found is not None and len(found) else [])]:
        write_file(record.folder / f"{chart.name}.png", png(chart))
    page = run_page(record, charts, _shown(record))
    path = record.folder / REPORT
    write_file(path, page.encode("utf-8", "replace"))
    return path


def write_comparison(records: Mapping[str, RunRecord], path: Path) -> None:
    """A page that compares runs by their names. Raises OSError where the disk refuses."""
    charts = compared(
        {name: charts_of(record.lines("train"), record.lines("eval")) for name, record in records.items()}
    )
    write_file(path, runs_page(records, charts).encode("utf-8", "replace"))


def report_at_the_end(summary: Path) -> None:
    """The report of a run that is done. A run is no worse for a report that fails, which is said in a line."""
    try:
        path = write_report(RunRecord.open(summary))
    except Exception as error:  # of drawing, of templates, of images, of disks
        logger.warning(f"the report could not be made: {first_line(error)}; convmixer report {summary} tries again")
        logger.debug("report", exc_info=True)
    else:
        logger.info(f"report: {path}")


def _shown(record: RunRecord) -> dict[str, Any]:
    """Images of the run and what is found in its data, as far as they can be read."""
    shown: dict[str, Any] = {"batch": _first_batch(record.folder)}
    opened, found = open_run(record), record.predictions
    if isinstance(opened, str):
        return {**shown, "no_pictures": printable(opened)}
    shown["findings"] = findings(opened)
    if found is None or not len(found):
        return shown

    def of(places: np.ndarray) -> Sequence[Any]:
        return pictures(places, found, record.classes, opened.val, opened.index, opened.model, opened.preprocessing)

    return {**shown, "mistakes": of(surest_mistakes(found)), "hits": of(hits(found))}


def _first_batch(folder: Path) -> list[dict[str, str]]:
    """The pictures of the first batch with their targets, cut out of one file."""
    try:
        record = json.loads((folder / BATCH_RECORD).read_text(encoding="utf-8"))
        with Image.open(folder / BATCH_PICTURE) as image:
            pixels = np.asarray(image.convert("RGB"))
        side, columns, targets = int(record["side"]), int(record["columns"]), list(record["targets"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    found = []
    for place, target in enumerate(targets):
        row, column = divmod(place, columns)
        tile = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        if tile.size:
            found.append({"image": as_data(tile), "target": printable(str(target))})
    return found
