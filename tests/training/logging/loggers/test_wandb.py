"""Weights & Biases without a network. It has no reader of its files, so that the test reads them by their format."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.training.logging.loggers.conftest import NAME, LogRun

wandb = pytest.importorskip("wandb", reason="needs the extra wandb")

from wandb.proto.wandb_internal_pb2 import Record

from convmixer.errors import UserError
from convmixer.training.logging.metric_logger import create_loggers

BLOCK, FILE_HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # settings are read from the environment once
    yield
    wandb.teardown()


def records(path: Path) -> Iterator[Any]:
    """The messages of a .wandb file: LevelDB's log format after a header of its own.

    https://github.com/google/leveldb/blob/main/doc/log_format.md: checksum, length, type; blocks of 32 KiB.
    """
    content, at, parts = path.read_bytes(), FILE_HEADER, []
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (FULL, LAST):
            yield Record.FromString(b"".join(parts))
            parts = []


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("summary/wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)


def history(path: Path) -> list[dict[str, Any]]:
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def curve(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


@pytest.mark.slow
def test_what_is_written_and_resumed(here: Path, log_run: LogRun) -> None:
    log_run("wandb")
    log_run("wandb", resumed=True, failed=True)
    wandb.teardown()  # its process has then written all that it has
    first, second = files(here)
    assert curve(history(first), "train/loss") == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert curve(history(first), "eval/Top1-Acc") == [(3, 0.75)]
    sizes = [(row["input.width"], row["input.height"]) for row in history(first) if "input.width" in row]
    assert sizes == [(6, 4)]
    assert curve(history(second), "train/loss") == [(3, 0.375)]
    assert curve(history(second), "eval/Top1-Acc") == [(3, 0.75)]
    identity = (here / "summary/wandb_run_id.txt").read_text().strip()
    for path, code in ((first, 0), (second, 1)):
        found = {record.WhichOneof("record_type"): record for record in records(path)}
        assert (found["run"].run.run_id, found["run"].run.project) == (identity, "convmixer")
        assert found["run"].run.display_name == NAME
        config = {item.key: json.loads(item.value_json) for item in found["run"].run.config.update}
        assert config | {"batch_size": 8, "beta": [0.9, 0.999]} == config
        assert found["exit"].exit.exit_code == code
        metrics = [record.metric for record in records(path) if record.WhichOneof("record_type") == "metric"]
        assert [(metric.glob_name, metric.step_metric) for metric in metrics if metric.glob_name] == [("*", "step")]


def test_without_an_account_the_user_is_told_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(here / "none"))
    wandb.teardown()
    with pytest.raises(UserError) as caught:
        create_loggers(["wandb"])
    assert str(caught.value) == (
        "--log_to: wandb has no API key; `wandb login` keeps one, WANDB_MODE=offline needs none"
    )
    assert list(here.iterdir()) == []
