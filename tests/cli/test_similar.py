"""`similar`: near duplicates, nearest neighbours, and the cosines by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Command

import convmixer
from convmixer.similarity import alike, directions, nearest


def test_pairs_and_neighbours_by_hand() -> None:
    features = np.array([[3.0, 1], [1, 3], [3.1, 1], [-1, -1]], np.float32)
    unit = features - features.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = unit @ unit.T
    vectors = directions(features)
    found = list(alike(vectors, 0.9))
    assert [(left, right) for left, right, _ in found] == [(0, 2)]
    assert found[0][2] == pytest.approx(expected[0, 2], abs=1e-6)
    indices, cosines = nearest(vectors[:1], vectors, 2)
    assert indices.tolist() == [[0, 2]]
    assert cosines[0] == pytest.approx([1, expected[0, 2]], abs=1e-6)


def test_more_rows_than_a_block() -> None:
    """The same pairs as all products at once."""
    features = np.random.default_rng(0).normal(size=(2500, 2)).astype(np.float32)
    vectors = directions(features)
    products = np.triu(vectors @ vectors.T, 1)
    expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(products >= 0.999999), strict=True)}
    assert {(left, right) for left, right, _ in alike(vectors, 0.999999)} == expected
    assert len(expected) > 100


@pytest.fixture
def album(own_toy: Path, here: Path) -> Path:
    """Images, one of them twice, once more as another file, and a text that calls itself an image."""
    folder = here / "album"
    folder.mkdir()
    for name in ("red/0.png", "red/2.png", "green/0.png", "blue/0.png"):
        shutil.copy(own_toy / "val" / name, folder / name.replace("/", "_"))
    shutil.copy(folder / "red_0.png", folder / "copy.png")
    with Image.open(folder / "red_0.png") as image:
        image.save(folder / "saved again.bmp")
    return folder


def test_duplicates(convmixer: Command, here: Path, album: Path, weights: Path) -> None:
    done = convmixer("similar", "album", "--checkpoint", weights, "--json", "pairs.json", "--min_similarity=0.9999")
    assert done.code == 0
    pairs = [line.split("\t") for line in done.out.splitlines()]
    names = {"album/copy.png", "album/red_0.png", "album/saved again.bmp"}
    assert {frozenset(pair[1:]) for pair in pairs} == {frozenset(names - {name}) for name in names}
    assert all(pair[0] == "1.0000" for pair in pairs)
    assert len(json.loads((here / "pairs.json").read_text())) == 3
    assert "3 pairs with a similarity of 0.9999 or more among 6 images" in done.err


def test_neighbours(convmixer: Command, here: Path, album: Path, weights: Path) -> None:
    (album / "text.png").write_text("no image")
    words = ["similar", "album", "--checkpoint", weights, "--neighbours=2", "--query", album / "red_2.png"]
    done = convmixer(*words)
    assert done.code == 1
    assert "left out: album/text.png: a text, no image" in done.err
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[1] for row in rows] == [str(album / "red_2.png")] * 2
    assert (rows[0][0], rows[0][2]) == ("1.0000", "album/red_2.png")


def test_wrong_use(convmixer: Command, here: Path, album: Path, weights: Path) -> None:
    assert convmixer("similar", "album").error == "--checkpoint: a weight file or a checkpoint folder is needed"
    assert convmixer("similar", "gone", "--checkpoint", weights).error == "there is no image or folder gone"
    (here / "texts").mkdir()
    (here / "texts/a.png").write_text("no image")
    done = convmixer("similar", "texts", "--checkpoint", weights)
    assert (done.code, done.error) == (1, "DATA: none of the images can be read")


def test_vectors_in_python(album: Path, weights: Path) -> None:
    model = convmixer.load_model(weights)
    found = model.embed([album / "red_0.png", album / "saved again.bmp", album / "blue_0.png"])
    assert found.shape == (3, model.arch.dim)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-3
    (album / "text.png").write_text("no image")
    with pytest.raises(convmixer.UserError, match=r"text\.png: a text, no image"):
        model.embed(album)
