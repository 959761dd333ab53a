"""What a run has left in its summary, read back: options, command, classes, metrics, answers of its best weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.config.options import options_of
from convmixer.config.recipes import read_recipe
from convmixer.config.run import FolderOptions
from convmixer.errors import UserError
from convmixer.metrics.tables import PREDICTIONS
from convmixer.runs.folders import CONFIG, read_record
from convmixer.runs.listing import read_metrics
from convmixer.runs.saved import origins_in

_ROOTS = {option.name: str(option.default) for option in options_of(FolderOptions)}


@dataclass(frozen=True)
class Predictions:
    """The answer to each evaluation image: `paths`; `labels`, `predicted` int [n], positions in the run's classes (-1:
    no answer); `probability` of the answer and `label_probability` of the label, float [n]."""

    paths: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    label_probability: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class RunRecord:
    """The summary folder of a run; what of it is missing or broken reads as empty."""

    folder: Path

    @classmethod
    def open(cls, path: str | Path) -> RunRecord:
        """By its summary, its folder of checkpoints or of best weights, a file in these, or its name.

        Raises UserError where there is no such run.
        """
        path = Path(path)
        for place in (path, path.parent):
            summaries = [place, place.absolute().parent.parent / Path(_ROOTS["summary_root_dir"]).name / place.name]
            for folder in (*summaries, Path(_ROOTS["summary_root_dir"]) / place.name):
                if (folder / CONFIG).is_file():
                    return cls(folder)
        raise UserError(f"RUN: {path} is no run: a folder of runs/summary or its name is expected; see convmixer runs")

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Name -> value. Raises UserError for a file of options that cannot be read."""
        return read_recipe(self.folder / CONFIG)

    @cached_property
    def origins(self) -> Mapping[str, str]:
        """Name -> where the value came from."""
        return origins_in(self.folder / CONFIG)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """Command, versions, hardware and the like."""
        return read_record(self.folder)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        try:
            names = json.loads((self.folder / "classes.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ()
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl, in their order."""
        return read_metrics(self.folder)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind, `train` or `eval`, that have a step."""
        return [line for line in self.metrics if line.get("kind") == kind and isinstance(line.get("step"), int)]

    @cached_property
    def predictions(self) -> Predictions | None:
        """None where the run has none, or a row is not of its classes."""
        place = {name: index for index, name in enumerate(self.classes)}
        answer = place | {"": -1}
        try:
            with (self.folder / PREDICTIONS).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                rows = list(csv.DictReader(file, strict=True))
            return Predictions(
                tuple(row["path"] for row in rows),
                np.array([place[row["label"]] for row in rows], dtype=np.int64),
                np.array([answer[row["predicted"]] for row in rows], dtype=np.int64),
                np.array([float(row["probability"]) for row in rows]),
                np.array([float(row["label_probability"]) for row in rows]),
            )
        except (OSError, csv.Error, KeyError, ValueError, TypeError):
            return None

    @property
    def checkpoints(self) -> str:
        """What `--resume` takes for this run: its name below the usual folder, else its folder of checkpoints."""
        usual = Path(_ROOTS["ckpt_root_dir"])
        beside = self.folder.absolute().parent.parent / usual.name / self.name
        if beside.is_dir():
            return self.name if beside.parent == usual.absolute() else str(beside)
        return str(Path(str(self.options.get("ckpt_root_dir"))) / self.name)

    @property
    def best_weights(self) -> Path | None:
        """The file of the best weights, beside the summary or where the options say; None where it is not there."""
        beside = self.folder.absolute().parent.parent / Path(_ROOTS["best_ckpt_root_dir"]).name
        roots = (beside, Path(str(self.options.get("best_ckpt_root_dir"))))
        return next((path for root in roots if (path := root / self.name / "best.safetensors").is_file()), None)
