"""The record of a model file: what goes in comes out, what older versions wrote is read, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from convmixer.arch import architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.metadata import ModelMetadata, decode_metadata, encode_metadata, seal_alone

WHOLE = ModelMetadata(
    architecture("convmixer_8_2", num_classes=2),
    ClassMap(("cat", "Käse\n")),
    Preprocessing(size=8, crop_pct=0.9, interpolation="bilinear", exif=True),
    {"step": 5},
    "ab" * 32,
    "int8",
    True,
)
ARCHITECTURE = {
    "dim": 8,
    "depth": 2,
    "kernel_size": 9,
    "patch_size": 7,
    "activation": "gelu",
    "num_classes": 2,
    "in_chans": 3,
}
INPUTS = {
    "size": 8,
    "crop_pct": 0.9,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "exif": True,
}


def test_what_is_written_is_read() -> None:
    assert decode_metadata(encode_metadata(WHOLE)) == WHOLE


def test_a_network_of_which_nothing_else_is_known() -> None:
    bare = ModelMetadata(WHOLE.architecture)
    assert decode_metadata(encode_metadata(bare)) == bare


def test_an_exported_file_of_the_first_format() -> None:
    """Written out as version 0.1.0 had it; the SHA-256 is that of the names as JSON."""
    text = json.dumps(
        {
            "format": 1,
            "arch": "convmixer_8_2",
            "architecture": ARCHITECTURE,
            "classes": ["cat", "dog"],
            "classes_sha256": "cd73b2771c519ee7c8369113fbe26f1866ac66570b70c3a8f6b897f893df0671",
            "preprocessing": INPUTS,
            "source_sha256": "ab" * 32,
            "precision": "int8",
            "embed_preprocess": True,
        }
    )
    expected = replace(WHOLE, classes=ClassMap(("cat", "dog")), extra={})
    assert decode_metadata(text) == expected
    with pytest.raises(ValueError, match="its class names do not fit their SHA-256"):
        decode_metadata(text.replace('"dog"', '"cow"'))


def test_a_weight_file_of_the_first_format() -> None:
    values = {
        "format": 1,
        "arch": ARCHITECTURE,
        "classes": None,
        "preprocessing": INPUTS,
        "extra": {"step": 5},
    }
    text = json.dumps({**values, "sha256": seal_alone(values)})
    found = decode_metadata(text)
    assert found == ModelMetadata(WHOLE.architecture, None, WHOLE.preprocessing, {"step": 5})
    with pytest.raises(ValueError, match="its SHA-256 does not fit its content"):
        decode_metadata(text.replace('"step": 5', '"step": 6'))


def sealed(values: dict[str, object]) -> str:
    values.pop("sha256", None)
    return json.dumps({**values, "sha256": seal_alone(values)})


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"architecture": {"dim": 8}},
        {"architecture": {**ARCHITECTURE, "activation": "tanh"}},
        {"preprocessing": {"size": 8, "turn": 90}},
        {"preprocessing": None},  # though the graph is said to have one
        {"classes": [1, 2]},
        {"classes": 5},
    ],
)
def test_a_record_that_says_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"its record"):
        decode_metadata(sealed(json.loads(encode_metadata(WHOLE)) | change))


@pytest.mark.parametrize("key", ["architecture", "classes", "preprocessing"])
def test_a_record_that_lacks_a_key_is_refused(key: str) -> None:
    values = json.loads(encode_metadata(WHOLE))
    del values[key]
    with pytest.raises(ValueError, match=r"its record is malformed"):
        decode_metadata(sealed(values))


def test_a_record_that_was_changed_is_refused() -> None:
    for name, value in json.loads(encode_metadata(WHOLE)).items():
        changed = json.loads(encode_metadata(WHOLE)) | {name: [value]}
        with pytest.raises(ValueError, match=r"its (record|SHA-256)"):
            decode_metadata(json.dumps(changed))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"format": ' * 100_000, '"' + "x" * 10**6])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (json's own message in one case)
        decode_metadata(text)
