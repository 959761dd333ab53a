"""The runs of a folder of summaries, as `convmixer runs` lists them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmixer.config.recipes import read_recipe
from convmixer.errors import UserError
from convmixer.run_names import by_start
from convmixer.runs.folders import CONFIG


@dataclass(frozen=True)
class ListedRun:
    """A run by its record. `epoch`: how far it is; `top1`: the best accuracy so far, None before an evaluation;
    `ended_early`: before its last epoch, as --patience asked."""

    name: str
    arch: str
    data: str
    epoch: float
    epochs: int
    top1: float | None
    ended_early: bool = False

    @property
    def state(self) -> str:
        if self.epoch >= self.epochs:
            return "done"
        return f"{'ended at' if self.ended_early else 'at'} {self.epoch:.3g} of {self.epochs} epochs"


def list_runs(root: Path) -> list[ListedRun]:
    """The runs below a folder of summaries, the newest first; what is no run is passed over."""
    found = []
    for folder in sorted(root.iterdir(), key=lambda path: by_start(path.name), reverse=True) if root.is_dir() else ():
        if not (folder / CONFIG).is_file():
            continue
        try:
            options = read_recipe(folder / CONFIG)
        except UserError:
            continue
        lines = read_metrics(folder)
        scores = [line["Top1-Acc"] for line in lines if isinstance(line.get("Top1-Acc"), float | int)]
        epochs = [line["epoch"] for line in lines if isinstance(line.get("epoch"), float | int)]
        found.append(
            ListedRun(
                folder.name,
                str(options.get("arch")),
                str(options.get("data_url") or options.get("set")),
                max(epochs, default=0.0),
                int(options.get("epochs") or 0),
                max(scores, default=None),
                bool(lines) and lines[-1].get("kind") == "end",
            )
        )
    return found


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a summary's metrics.jsonl; one that is not whole, as the last may be, is left out."""
    lines = []
    with contextlib.suppress(OSError), (folder / "metrics.jsonl").open(encoding="utf-8", errors="replace") as file:
        for text in file:
            with contextlib.suppress(ValueError, RecursionError):
                lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]
