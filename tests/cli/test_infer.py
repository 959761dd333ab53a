"""`infer`: its lines, its JSON, and what becomes of a file that is no image."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Command


@pytest.fixture
def pictures(own_toy: Path, here: Path) -> Path:
    """A folder of three images, one below it, and a text."""
    folder = here / "pictures"
    (folder / "more").mkdir(parents=True)
    for name, source in (("b.png", "red/0.png"), ("a.jpg", "green/1.jpg"), ("more/c.jpeg", "blue/1.jpg")):
        shutil.copy(own_toy / "val" / source, folder / name)
    shutil.copy(own_toy / "val/blue/0.png", folder / "C.PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_line_by_line_and_in_json(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    done = convmixer("infer", "pictures", "--format=class", "--checkpoint", weights)
    assert done.code == 0
    answers = json.loads((here / "predictions.json").read_text())
    assert list(answers) == ["pictures/C.PNG", "pictures/a.jpg", "pictures/b.png"]
    assert done.out.splitlines() == [f"{path} (class: {label})" for path, label in answers.items()]
    assert all(label in (0, 1, 2) for label in answers.values())
    # Indented by one, as the model zoo's file.
    assert (here / "predictions.json").read_text().startswith('{\n "pictures/C.PNG": ')
    assert "3 images, " in done.err


def test_answers_do_not_depend_on_batch_or_threads(convmixer: Command, here: Path, toy: Path, weights: Path) -> None:
    words = ["infer", toy / "val", "--recursive", "--checkpoint", weights]
    first = convmixer(*words)
    second = convmixer(*words, "--batch_size=1", "-j", "0")
    assert len(first.out.splitlines()) == 13
    assert first.out == second.out


def test_a_single_image_and_another_output(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    path = pictures / "a.jpg"
    done = convmixer("infer", path, "--format=class", "--checkpoint", weights, "-o", "answer.json")
    answers = json.loads((here / "answer.json").read_text())
    assert done.out == f"{path} (class: {answers[str(path)]})\n"
    assert not (here / "predictions.json").exists()


def test_recursive_looks_below(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    done = convmixer("infer", "pictures", "--checkpoint", weights, "--recursive")
    assert [line.split(" (")[0] for line in done.out.splitlines()] == [
        "pictures/C.PNG",
        "pictures/a.jpg",
        "pictures/b.png",
        "pictures/more/c.jpeg",
    ]


def test_full_format_has_names_and_probabilities(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    plain = convmixer("infer", "pictures", "--format=class", "--checkpoint", weights, "-o", "plain.json")
    done = convmixer("infer", "pictures", "--checkpoint", weights, "--topk=2")
    assert plain.code == done.code == 0
    labels = json.loads((here / "plain.json").read_text())
    records = json.loads((here / "predictions.json").read_text())
    assert list(records) == list(labels)
    for path, record in records.items():
        assert record["class"] == labels[path] == record["top"][0]["class"]
        assert record["name"] == ["blue", "green", "red"][record["class"]]
        first, second = (entry["probability"] for entry in record["top"])
        assert 1 / 3 < first < 1
        assert 0 < second <= first
        assert first + second < 1
        assert record["name"] in next(line for line in done.out.splitlines() if line.startswith(path))


def test_all_classes_add_up_to_one(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    convmixer("infer", pictures / "a.jpg", "--checkpoint", weights, "--format=full", "--topk=10")
    (record,) = json.loads((here / "predictions.json").read_text()).values()
    assert sum(entry["probability"] for entry in record["top"]) == pytest.approx(1)


@pytest.mark.parametrize("damage", ["cut", "cut and closed", "text", "empty"])
def test_a_bad_file_is_named_and_the_rest_is_answered(
    convmixer: Command, here: Path, pictures: Path, weights: Path, damage: str
) -> None:
    whole = (pictures / "a.jpg").read_bytes()
    content = {
        "cut": whole[:-40],
        "cut and closed": whole[:-40] + b"\xff\xd9",
        "text": b"not an image",
        "empty": b"",
    }[damage]
    (pictures / "aa.jpg").write_bytes(content)
    done = convmixer("infer", "pictures", "--checkpoint", weights)
    assert done.code == 1
    assert "not classified: pictures/aa.jpg: " in done.err
    assert "1 of 4 images could not be read" in done.err
    assert list(json.loads((here / "predictions.json").read_text())) == [
        "pictures/C.PNG",
        "pictures/a.jpg",
        "pictures/b.png",
    ]
    assert len(done.out.splitlines()) == 3


def test_a_hostile_file_name_stays_on_its_line(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    name = "pictures/x\n\x1b[31m.png"
    (pictures / "b.png").rename(name)
    done = convmixer("infer", "pictures", "--format=class", "--checkpoint", weights)
    assert done.out.splitlines()[-1].startswith(r"pictures/x\n\x1b[31m.png (class: ")
    assert name in json.loads((here / "predictions.json").read_text())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/such/folder.json", "--output: no/such/folder.json cannot be written: there is no folder no/such"),
        (".", "--output: . is a folder; name a file in it"),
        ("pictures", "--output: pictures is a folder; name a file in it"),
        ("pictures/a.jpg", "--output: pictures/a.jpg is there already and holds no answers; name another file"),
        ("a.jpg/x.json", "--output: a.jpg/x.json cannot be written: there is no folder a.jpg"),
        ("", "--output: is empty"),
        ("x" * 256, f"--output: {'x' * 256} cannot be written: File name too long"),
        ("loop", "--output: loop cannot be written: Too many levels of symbolic links"),
    ],
)
def test_an_output_that_cannot_be_written(
    convmixer: Command, here: Path, pictures: Path, output: str, message: str
) -> None:
    (here / "loop").symlink_to("loop")
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    # Asked before anything is opened: these weights are none.
    done = convmixer("infer", "pictures", "--checkpoint", "pictures/notes.txt", "-o", output)
    assert (done.code, done.error) == (2, message)
    assert {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()} == before


def test_earlier_answers_are_replaced_and_nothing_is_left_by_a_command_that_fails(
    convmixer: Command, here: Path, pictures: Path, weights: Path
) -> None:
    assert convmixer("infer", "pictures", "--checkpoint", "pictures/notes.txt", "-o", "new.json").code == 2
    assert not (here / "new.json").exists()
    for data, count in (("pictures", 3), ("pictures/a.jpg", 1)):
        assert convmixer("infer", data, "--checkpoint", weights).code == 0
        assert len(json.loads((here / "predictions.json").read_text())) == count
    earlier = (here / "predictions.json").read_text()
    assert convmixer("infer", "pictures", "--checkpoint", "pictures/notes.txt").code == 2
    assert (here / "predictions.json").read_text() == earlier


def test_the_file_is_that_of_the_json_module(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    for words in (("pictures", "--format=full"), ("pictures",), ("pictures/a.jpg",)):
        convmixer("infer", *words, "--checkpoint", weights)
        text = (here / "predictions.json").read_text()
        assert text == json.dumps(json.loads(text), indent=1) + "\n"
    (pictures / "a.jpg").write_text("no image")
    assert convmixer("infer", "pictures/a.jpg", "--checkpoint", weights).code == 1
    assert (here / "predictions.json").read_text() == "{}\n"


def test_a_pipe_takes_the_answers(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    os.mkfifo(here / "pipe")
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit((here / "pipe").read_text)
        done = convmixer("infer", "pictures", "--checkpoint", weights, "-o", "pipe")
        assert done.code == 0
        assert len(json.loads(reader.result())) == 3


def test_names_and_probabilities_are_the_default(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    done = convmixer("infer", "pictures/a.jpg", "pictures/b.png", "--checkpoint", weights, "--topk=1")
    assert done.code == 0
    lines = done.out.splitlines()
    records = json.loads((here / "predictions.json").read_text())
    expected = [f"{path} ({each['name']} {each['top'][0]['probability']:.4f})" for path, each in records.items()]
    assert lines == expected
    assert len(lines) == 2
    # A threshold that no answer reaches.
    done = convmixer("infer", "pictures/a.jpg", "--checkpoint", weights, "--topk=1", "--threshold=1")
    assert done.out == lines[0].replace("(", "(unsure: ") + "\n"


def test_answers_to_stdout_as_json_lines(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    (pictures / "aa.jpg").write_bytes(b"")
    done = convmixer("infer", "pictures", "--checkpoint", weights, "-o", "-", "--embed")
    assert done.code == 1
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["path"] for row in rows] == [f"pictures/{name}" for name in ("C.PNG", "a.jpg", "aa.jpg", "b.png")]
    assert rows[2] == {"path": "pictures/aa.jpg", "error": "empty file"}
    assert len(rows[0]["embedding"]) == 8  # of convmixer_8_2
    assert not (here / "predictions.json").exists()


def test_embeddings_are_what_the_head_sees(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    """The head applied to a vector is the answer, by hand."""
    from safetensors.numpy import load_file

    convmixer("infer", "pictures/a.jpg", "--checkpoint", weights, "-o", "a.jsonl", "--embed")
    row = json.loads((here / "a.jsonl").read_text())
    head = load_file(weights)
    logits = np.array(row["embedding"]) @ head["head.weight"].T + head["head.bias"]
    odds = np.exp(logits - logits.max())
    assert (odds / odds.sum())[row["index"]] == pytest.approx(row["probability"], abs=1e-5)


def test_pictures_of_what_spoke_for_the_answers(convmixer: Command, here: Path, pictures: Path, weights: Path) -> None:
    done = convmixer("infer", "pictures", "--checkpoint", weights, "--explain", "cam")
    assert done.code == 0
    names = [each["name"] for each in json.loads((here / "predictions.json").read_text()).values()]
    found = sorted(path.name for path in (here / "cam").iterdir())
    stems = zip(("C", "a", "b"), names, strict=True)
    assert found == [f"00000{n}_{stem}_{name}.png" for n, (stem, name) in enumerate(stems, start=1)]
    with Image.open(here / "cam" / found[0]) as picture:
        assert picture.width == 2 * picture.height
        assert picture.height >= 224
    done = convmixer("infer", "pictures", "--checkpoint", weights, "--explain", "pictures/notes.txt")
    assert (done.code, done.error) == (2, "--explain: pictures/notes.txt is no folder that you may write to")
