"""Which members of a shard are samples: WebDataset's naming, from files that are written by hand here.

https://github.com/webdataset/webdataset#the-webdataset-format: "files belonging together and making up a sample share
the same basename when stripped of all extensions"; the base name ends at the first dot behind the last slash.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tests.data.shards.tars import write_tar

from convmixer.data.shards.index_file import from_bytes, to_bytes
from convmixer.data.shards.samples import Samples, concatenated, scan


def scanned(path: Path) -> Samples:
    content = path.read_bytes()
    return scan(lambda at, count: content[at : at + count], len(content), str(path))


def found(tmp_path: Path, *names_and_contents: tuple[str, bytes]) -> tuple[dict[str, int | str], dict[str, int]]:
    """Label by image member, and what is ignored."""
    path = write_tar(tmp_path / "x.tar", names_and_contents)
    samples = scanned(path)
    content = path.read_bytes()
    labels: dict[str, int | str] = {}
    for index in range(len(samples)):
        label, at = int(samples.label[index]), int(samples.offset[index])
        labels[samples.key(index)] = label if label >= 0 else samples.names[-1 - label]
        own = dict(names_and_contents)[samples.key(index)]
        assert content[at : at + int(samples.size[index])] == own
    return labels, dict(samples.ignored)


def test_a_sample_is_what_shares_the_path_up_to_the_first_dot(tmp_path: Path) -> None:
    labels, ignored = found(
        tmp_path,
        ("train/n01.x/0001.jpg", b"one"),  # a dot in a folder's name does not count
        ("train/n01.x/0001.cls", b"7"),
        ("train/n01.x/0001.json", b'{"label": 9}'),
        ("0001.cls", b"3\n"),  # the same base name in another folder is another sample; the label may come first
        ("0001.jpeg", b"two"),
        ("a.b.jpg", b"three"),  # of the key `a`, the extension is `b.jpg`: no image
        ("a.cls", b"1"),
        ("B.PNG", b"four"),
        ("B.CLS", b"0"),
    )
    assert labels == {"train/n01.x/0001.jpg": 7, "0001.jpeg": 3, "B.PNG": 0}
    assert ignored == {".b.jpg": 1, "label without an image": 1}


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ({"k.cls": b"12"}, 12),
        ({"k.cls": b" 12\n"}, 12),
        ({"k.cls": b"tabby cat"}, "tabby cat"),
        ({"k.cls": "Ku\u0308che".encode()}, "K\u00fcche"),  # NFD, as a Mac writes it
        ({"k.json": b'{"label": 4, "cls": 5}'}, 4),
        ({"k.json": b'{"cls": 5, "label": "five"}'}, 5),
        ({"k.cls": b"", "k.json": b'{"label": 4}'}, 4),
        ({"k.json": b'{"label": true}'}, None),
        ({"k.json": b'{"label": -1}'}, None),
        ({"k.json": b'{"label": 1e400}'}, None),
        ({"k.json": b"[" * 100_000}, None),
        ({"k.json": b"{"}, None),
        ({"k.json": b'["label"]'}, None),
        ({"k.cls": b"x" * 2000}, None),
        ({"k.txt": b"a caption"}, None),
    ],
)
def test_labels(tmp_path: Path, members: dict[str, bytes], label: int | str | None) -> None:
    labels, ignored = found(tmp_path, *members.items(), ("k.jpg", b"image"))
    assert labels == ({} if label is None else {"k.jpg": label})
    assert ignored.get("image without a label") == (1 if label is None else None)


def test_only_images_and_labels_are_looked_at(tmp_path: Path) -> None:
    """Fault 33: pickles, links, paths that lead out."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes = b"1", **about: object) -> None:
            info = tarfile.TarInfo(name)
            for key, value in about.items():
                setattr(info, key, value)
            is_file = info.type == tarfile.REGTYPE
            info.size = len(content) if is_file else 0
            tar.addfile(info, io.BytesIO(content) if is_file else None)

        add("folder", type=tarfile.DIRTYPE)
        add("a.pkl", b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
        add("a.pth")
        add("../b.jpg")
        add("../b.cls")
        add("/etc/c.jpg")
        add("d.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("d.cls", type=tarfile.LNKTYPE, linkname="a.pkl")
        add("e.jpg", type=tarfile.BLKTYPE)
        add("._f.jpg")
        add("g.jpg")
        add("g.cls")
        add("g.png")
        add("README")
    samples = scanned(path)
    assert [samples.key(index) for index in range(len(samples))] == ["g.jpg"]
    assert dict(samples.ignored) == {
        ".pkl": 1,
        ".pth": 1,
        "path that leads out": 3,
        "link or device": 3,
        "name begins with a dot": 1,
        "second image or label of a sample": 1,
        "no extension": 1,
    }
    assert list(tmp_path.iterdir()) == [path]  # nothing was unpacked


def test_shards_together(tmp_path: Path) -> None:
    one = scanned(write_tar(tmp_path / "1.tar", [("a.jpg", b"x"), ("a.cls", b"cat"), ("b.jpg", b"y"), ("b.cls", b"5")]))
    two = scanned(
        write_tar(tmp_path / "2.tar", [("c.jpg", b"z"), ("c.cls", b"dog"), ("d.jpg", b"z"), ("d.cls", b"cat")])
    )
    both = concatenated([one, two])
    assert both.names == ("cat", "dog")
    assert both.label.tolist() == [-1, 5, -2, -1]
    assert [both.key(index) for index in range(4)] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    some = both.take(np.array([3, 1]))
    assert [some.key(0), some.key(1), some.label.tolist()] == ["d.jpg", "b.jpg", [-1, 5]]


def test_the_file_of_an_index(tmp_path: Path) -> None:
    samples = scanned(write_tar(tmp_path / "1.tar", [("ä.jpg", b"x"), ("ä.cls", b"cat"), ("x.pkl", b"")]))
    content = to_bytes(samples)
    again = from_bytes(content)
    assert again is not None
    assert (again.key(0), again.names, again.ignored) == ("ä.jpg", ("cat",), {".pkl": 1})
    assert (again.offset.tolist(), again.size.tolist(), again.label.tolist()) == ([512], [1], [-1])
    assert to_bytes(again) == content
    for at in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        found = from_bytes(bytes(damaged))  # never an error, never what does not fit together
        assert found is None or len(found) == 1
    assert from_bytes(content[:-1]) is None
    assert from_bytes(b"") is None
    file = io.BytesIO()
    np.savez_compressed(file, offset=np.zeros(10**6))
    assert from_bytes(file.getvalue()) is None
    file = io.BytesIO()
    np.savez(file, offset=np.array([object()]), allow_pickle=True)
    assert from_bytes(file.getvalue()) is None
