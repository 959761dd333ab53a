"""What a finished training run has left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunResult:
    """Name of a run, its three folders, its best weights, its last checkpoint and the best top-1 accuracy (0 to 1)."""

    name: str
    summary: Path
    checkpoints: Path
    best: Path
    best_weights: Path
    last_checkpoint: Path | None
    best_top1: float | None

    def metrics(self, kind: str = "eval") -> list[dict[str, Any]]:
        """The lines of metrics.jsonl of a kind, `eval` or `train`, in the order of the steps."""
        lines = (self.summary / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]
