"""The record of an exported model: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import json

import pytest

from convmixer.arch import architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.metadata import ModelMetadata, decode

ABOUT = ModelMetadata(
    architecture("convmixer_8_2", num_classes=2),
    ClassMap(("cat", "Käse\n")),
    Preprocessing(size=8, crop_pct=0.9, interpolation="bilinear", exif=True),
    "ab" * 32,
    "int8",
    True,
)


def test_what_is_written_is_read() -> None:
    assert decode(ABOUT.encode()) == ABOUT


def test_a_network_without_class_names() -> None:
    about = ModelMetadata(ABOUT.architecture, None, ABOUT.preprocessing, "")
    assert decode(about.encode()) == about


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"architecture": {"dim": 8}},
        {"preprocessing": {"size": 8, "turn": 90}},
        {"classes": [1, 2]},
        {"classes": ["cat", "dog"]},  # names that do not fit their hash
        {"classes": 5},
    ],
)
def test_a_record_that_was_changed_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"its (record|class names)"):
        decode(json.dumps(json.loads(ABOUT.encode()) | change))


@pytest.mark.parametrize("key", ["architecture", "classes", "classes_sha256", "preprocessing", "source_sha256"])
def test_a_record_that_lacks_a_key_is_refused(key: str) -> None:
    values = json.loads(ABOUT.encode())
    del values[key]
    with pytest.raises(ValueError, match=r"its (record|class names)"):
        decode(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"format": ' * 100_000, '"' + "x" * 10**6])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (json's own message in one case)
        decode(text)
