"""Files of answers: each kind read back by a program of others, and what is refused before the work."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from convmixer.answers.files import check_output, open_answers
from convmixer.answers.record import line_of, record_of
from convmixer.errors import UserError
from convmixer.prediction import ClassProbability, Prediction

TOP = (ClassProbability(2, 'a, "b"\nc', 0.75), ClassProbability(0, "rose", 0.25))
ANSWERS = [
    Prediction("x,1.png", TOP, embedding=np.array([0.5, -2], np.float32)),
    Prediction("bad.png", error="cut short"),
    Prediction("y.png", TOP[::-1], unsure=True, embedding=np.array([1, 3], np.float32)),
]


def written(path: Path, answers: list[Prediction] = ANSWERS) -> Path:
    check_output(str(path))
    with open_answers(str(path), full=True, topk=2) as file:
        for each in answers:
            if each.error is None or file.takes_errors:
                file.add(each)
    check_output(str(path))  # its own answers may be replaced
    return path


def test_json_lines(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in written(tmp_path / "a.jsonl").read_text().splitlines()]
    topk = [{"index": 2, "name": TOP[0].name, "probability": 0.75}, {"index": 0, "name": "rose", "probability": 0.25}]
    assert rows[0] == {"path": "x,1.png", **topk[0], "topk": topk, "embedding": [0.5, -2.0]}
    assert rows[1] == {"path": "bad.png", "error": "cut short"}
    assert (rows[2]["unsure"], rows[2]["name"]) == (True, "rose")


def test_csv(tmp_path: Path) -> None:
    with written(tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "path": "x,1.png",
        "index": "2",
        "name": TOP[0].name,
        "probability": "0.75",
        "unsure": "",
        "error": "",
        "name_2": "rose",
        "probability_2": "0.25",
    }
    assert (rows[1]["path"], rows[1]["name"], rows[1]["error"]) == ("bad.png", "", "cut short")
    assert rows[2]["unsure"] == "true"


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(written(tmp_path / "a.parquet")).to_pylist()
    assert [row["path"] for row in rows] == ["x,1.png", "bad.png", "y.png"]
    assert (rows[0]["index"], rows[0]["topk"][1]["name"], rows[0]["embedding"]) == (2, "rose", [0.5, -2.0])
    assert (rows[1]["index"], rows[1]["error"]) == (None, "cut short")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_json_document(tmp_path: Path) -> None:
    found = json.loads(written(tmp_path / "a.json").read_text())
    assert list(found) == ["x,1.png", "y.png"]
    assert found["y.png"]["unsure"] is True
    with open_answers(str(tmp_path / "b.json"), full=False, topk=2) as file:
        for each in ANSWERS[::2]:
            file.add(each)
    assert (tmp_path / "b.json").read_text() == '{\n "x,1.png": 2,\n "y.png": null\n}\n'


def test_lines() -> None:
    assert line_of(ANSWERS[2], full=True) == 'y.png (unsure: rose 0.2500, a, "b"\\nc 0.7500)'
    assert line_of(ANSWERS[2], full=False) == "y.png (class: unsure)"
    assert line_of(ANSWERS[0], full=False) == "x,1.png (class: 2)"
    assert "embedding" not in record_of(Prediction("z", TOP))


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".json", b"other content"),
        (".json", b'{"settings": 1}'),
        (".jsonl", b'{"text": "x"}'),
        (".csv", b"path,label,predicted"),  # as eval writes it
        (".parquet", b"other content"),
    ],
)
def test_what_is_no_file_of_answers_is_not_lost(tmp_path: Path, suffix: str, content: bytes) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is there already and holds no answers; name another file"):
        check_output(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_vectors_go_where_they_have_a_place(name: str) -> None:
    with pytest.raises(UserError, match=r"--embed: feature vectors go to an --output of \.jsonl or \.parquet, not"):
        check_output(name, embeddings=True)
