"""MindSpore's format against a file of MindSpore 2.10.0 (data/make_tiny_mindspore.py makes it) and bytes by hand."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convmixer.errors import UserError
from convmixer.weights.mindspore_ckpt import encode_checkpoint, looks_like_checkpoint, read_checkpoint

DATA = Path(__file__).parent / "data"
SAMPLE = DATA / "tiny_mindspore.ckpt"


def chunk(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field of fewer than 128 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def value(tag: bytes, dims: bytes, kind: bytes, content: bytes) -> bytes:
    return chunk(1, chunk(1, tag) + chunk(2, dims + chunk(2, kind) + chunk(3, content)))


UNPACKED_2_3 = b"\x08\x02\x08\x03"
PACKED_2_3 = b"\x0a\x02\x02\x03"
SIX_FLOATS = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


Read = Callable[[bytes], dict[str, np.ndarray]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The arrays of a checkpoint of these bytes, without its texts."""

    def from_bytes(content: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / "made.ckpt"
        path.write_bytes(content)
        return {name: entry for name, entry in read_checkpoint(path).items() if isinstance(entry, np.ndarray)}

    return from_bytes


def test_file_of_the_real_mindspore() -> None:
    entries, expected = read_checkpoint(SAMPLE), np.load(DATA / "tiny_mindspore.npz")
    weights = [name for name in expected.files if name.startswith("network.")]
    assert len(weights) == 32
    for name in weights:
        entry = entries[name]
        assert isinstance(entry, np.ndarray)
        assert entry.dtype == np.float32
        np.testing.assert_array_equal(entry, expected[name])
    epoch = entries["epoch_num"]
    assert isinstance(epoch, np.ndarray)
    assert epoch == np.int64(3)
    assert epoch.shape == ()
    assert entries["learning_rate"] == np.float32(0.001)
    assert entries["run"] == "tiny"
    assert looks_like_checkpoint(SAMPLE.read_bytes()[:512])


@pytest.mark.parametrize("dims", [UNPACKED_2_3, PACKED_2_3])
def test_dims_packed_and_not(read: Read, dims: bytes) -> None:
    array = read(value(b"w", dims, b"Float32", SIX_FLOATS))["w"]
    np.testing.assert_array_equal(array, np.array([[1, 2, 3], [4, 5, 6]], np.float32))


def test_bytes_written_are_those_of_the_format() -> None:
    array = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert encode_checkpoint({"w": array}) == value(b"w", UNPACKED_2_3, b"Float32", SIX_FLOATS)


def test_tensor_in_slices(read: Read) -> None:
    slices = [value(b"w", UNPACKED_2_3, b"Float32", part) for part in (SIX_FLOATS[:8], SIX_FLOATS[8:])]
    other = value(b"b", b"\x08\x01", b"Int32", struct.pack("<i", -7))
    entries = read(b"".join(slices) + other)
    np.testing.assert_array_equal(entries["w"], np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    assert entries["b"].tolist() == [-7]


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (b"Float16", b"\x00\x3c", np.float16(1)),
        (b"Float64", struct.pack("<d", 0.1), np.float64(0.1)),
        (b"Int64", struct.pack("<q", -(2**40)), np.int64(-(2**40))),
        (b"UInt8", b"\xff", np.uint8(255)),
        (b"Bool", b"\x01", np.bool_(True)),
        (b"BFloat16", b"\xc0\x3f", np.float32(1.5)),
    ],
)
@pytest.mark.parametrize("dims", [b"", b"\x08\x00"])
def test_types_and_both_spellings_of_a_scalar(
    read: Read, kind: bytes, content: bytes, expected: np.generic, dims: bytes
) -> None:
    array = read(value(b"x", dims, kind, content))["x"]
    assert (array.shape, array.dtype) == ((), expected.dtype)
    assert array[()] == expected


def test_arrays_come_back_equal(read: Read) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "network.0.weight": rng.standard_normal((300, 4, 2, 2)).astype(np.float32),
        "half": rng.standard_normal((3, 0, 2)).astype(np.float16),
        "double": np.array(0.1),
        "count": np.arange(5),
        "mask": np.array([True, False]),
        "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "big_endian": np.arange(3, dtype=">f4"),
    }
    back = read(encode_checkpoint(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back[name], array)


def test_crc_is_checked(tmp_path: Path, read: Read) -> None:
    body = value(b"w", UNPACKED_2_3, b"Float32", SIX_FLOATS)
    tail = b"crc_num" + zlib.crc32(body).to_bytes(10, "big")
    assert read(body + tail)["w"].shape == (2, 3)
    flipped = bytearray(body + tail)
    flipped[-30] ^= 1
    with pytest.raises(UserError, match="CRC"):
        read(bytes(flipped))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (value(b"w", UNPACKED_2_3, b"Float32", SIX_FLOATS)[:-1], "ends in the middle"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "ends in the middle"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too many bytes"),
        (value(b"w", UNPACKED_2_3, b"Float32", SIX_FLOATS[:-4]), "do not fit its shape"),
        (value(b"w", b"\x08" + b"\xff" * 9 + b"\x01", b"Float32", SIX_FLOATS), "do not fit its shape"),
        (value(b"w", b"\x08\x00\x08" + b"\xff" * 8 + b"\x7f", b"Float32", b""), "do not fit its shape"),
        (chunk(1, chunk(1, b"w") + chunk(2, b"\x0a\x46" + b"\x01" * 70 + chunk(2, b"UInt8") + chunk(3, b"x"))), "fit"),
        (b"\x12\x00", "unknown type"),
        (value(b"w", UNPACKED_2_3, b"Float33", SIX_FLOATS), "Float33"),
        (value(b"\xff\xfe", UNPACKED_2_3, b"Float32", SIX_FLOATS), "not text"),
        (chunk(1, chunk(2, b"")), "no name"),
        (b"\x08\x01", "where bytes belong"),
        (b"\x0b\x01", "unknown type"),
        (b"\x0a\x02\x08\x01", "where bytes belong"),
    ],
)
def test_malformed_bytes_are_refused_in_one_line(read: Read, content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read(content)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_no_change_of_a_real_file_crashes(read: Read) -> None:
    """Any flipped byte or cut either reads or raises UserError; nothing else gets out."""
    whole, rng = SAMPLE.read_bytes()[:-17], random.Random(0)
    refused = 0
    for trial in range(300):
        content = bytearray(whole)
        if trial % 3:
            content[rng.randrange(len(content) if trial % 2 else 80)] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        try:
            read(bytes(content))
        except UserError:
            refused += 1
    assert refused > 100


@pytest.mark.mindspore  # importing it raises the recursion limit, which other tests count on
def test_mindspore_reads_what_is_written(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mindspore
    rng = np.random.default_rng(1)
    arrays = {"network.0.weight": rng.standard_normal((8, 3, 2, 2)).astype(np.float32)}
    arrays |= {"network.2.gamma": rng.standard_normal(8).astype(np.float16), "epoch_num": np.array(3)}
    path = tmp_path / "ours.ckpt"
    path.write_bytes(encode_checkpoint(arrays))
    loaded = mindspore.load_checkpoint(str(path))
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].asnumpy().dtype == array.dtype
        np.testing.assert_array_equal(loaded[name].asnumpy(), array)
