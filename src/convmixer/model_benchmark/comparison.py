"""The comparison of model files: each timed at one image and at a batch, and scored where there are labelled images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from convmixer.config.resolved import Resolved
from convmixer.data.splits import FOLDERS
from convmixer.errors import UserError
from convmixer.machine import processor_name, usable_cores
from convmixer.model_benchmark.contenders import Contender, Failure, contenders
from convmixer.model_benchmark.timing import Times, measure
from convmixer.model_evaluation import evaluate_opened

if TYPE_CHECKING:
    from convmixer.config.schema import BenchmarkConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A file in an engine: its size, its times at one image and at a batch, and top-1, 0 to 1, or None."""

    file: str
    engine: str
    bytes: int
    one: Times
    batch: Times
    top1: float | None


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of the command line, and what could not be run."""

    rows: tuple[Row, ...]
    failed: tuple[Failure, ...]


def compare_files(resolved: Resolved[BenchmarkConfig]) -> Comparison:
    """Open, time and score the files. Raises UserError where none is named; what fails is in the comparison."""
    options = resolved.options
    opened, failed = contenders(resolved)
    labelled = options.data_url is not None or options.set != FOLDERS
    scores: dict[int, float] = {}
    for number, contender in enumerate(opened):
        if labelled:
            try:
                score, _ = evaluate_opened(resolved, contender.model, contender.file)
                scores[number] = score.results()["Top1-Acc"]
            except UserError as error:
                failed.append(Failure(contender.file, contender.engine, str(error)))
    kept = [number for number in range(len(opened)) if not labelled or number in scores]
    rows = list[Row]()
    # Those of one batch size after the other, so that an engine that makes a network for each size makes two.
    one, batch = (_times([opened[n] for n in kept], size, options.seconds) for size in (1, options.batch_size))
    for number, alone, together in zip(kept, one, batch, strict=True):
        contender = opened[number]
        refusal = next((times for times in (alone, together) if isinstance(times, UserError)), None)
        if isinstance(alone, Times) and isinstance(together, Times):
            top1 = scores.get(number)
            rows.append(Row(contender.file, contender.engine, contender.bytes, alone, together, top1))
        else:
            failed.append(Failure(contender.file, contender.engine, str(refusal)))
    return Comparison(tuple(rows), tuple(failed))


def _times(compared: Sequence[Contender], batch: int, seconds: float) -> list[Times | UserError]:
    calls = []
    for contender in compared:
        inputs = contender.model.preprocessing
        shape = (batch, inputs.size, inputs.size, inputs.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        calls.append(partial(contender.model.runtime.logits, images))
    logger.info(f"timing {len(calls)} at {batch} image{'s' if batch > 1 else ''} for {seconds:g} s each")
    return measure(calls, batch, seconds)


def to_text(comparison: Comparison) -> str:
    """The rows as a table to be read."""
    large = comparison.rows[0].batch.batch if comparison.rows else 0
    lines = [("file", "engine", "MB", "img/s at 1", f"img/s at {large}", "p50 ms", "p99 ms", "top-1 %")]
    for row in comparison.rows:
        lines.append(
            (
                row.file,
                row.engine,
                f"{row.bytes / 1e6:.3g}",
                f"{row.one.rate:.1f}",
                f"{row.batch.rate:.1f}",
                f"{row.one.milliseconds(50):.3g}",
                f"{row.one.milliseconds(99):.3g}",
                "" if row.top1 is None else f"{row.top1:.2%}".rstrip("%"),
            )
        )
    if all(row.top1 is None for row in comparison.rows):
        lines = [line[:-1] for line in lines]  # type: ignore[misc]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if column < 2 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def to_record(comparison: Comparison, seconds: float) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "seconds": seconds,
        "files": [
            {
                "file": row.file,
                "engine": row.engine,
                "bytes": row.bytes,
                "images_per_second": row.one.rate,
                "batch_size": row.batch.batch,
                "images_per_second_in_batches": row.batch.rate,
                "p50_ms": row.one.milliseconds(50),
                "p99_ms": row.one.milliseconds(99),
                "calls": len(row.one.seconds),
                "top1": row.top1,
            }
            for row in comparison.rows
        ],
        "failed": [{"file": item.file, "engine": item.engine, "reason": item.reason} for item in comparison.failed],
    }
