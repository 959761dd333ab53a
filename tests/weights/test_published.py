"""Published weights by name, from a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.conftest import Command
from tests.weights.conftest import as_timm

from convmixer.arch import VARIANTS, Architecture
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.model import ConvMixer
from convmixer.weights import published
from convmixer.weights.published import PUBLISHED, Published
from convmixer.weights.read import read_weights

NAME = "convmixer_8_2.in1k"
ARCH = Architecture(8, 2, kernel_size=3, patch_size=2, activation="relu", num_classes=1000)


@dataclass
class Hub:
    """A server with one repository; `served` counts what it sent, `etag` is what it says of its file."""

    content: bytes
    etag: str = ""
    served: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def model() -> ConvMixer:
    torch.manual_seed(0)
    return ConvMixer(ARCH).eval()


@pytest.fixture
def hub(model: ConvMixer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub with the tiny network in timm's layout, and an empty cache; the table knows its name and its hash."""
    content = safetensors.torch.save(as_timm(model.state_dict()), {"format": "pt"})
    digest = hashlib.sha256(content).hexdigest()
    here = Hub(content, digest)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            found = self.path == f"/timm/{NAME}/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            if found:
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{here.etag}"')
            self.send_header("Content-Length", str(len(here.content) if found else 0))
            self.end_headers()
            here.served.append(f"{self.command} {self.path}")

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(here.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    here.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", here.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PUBLISHED, NAME, Published(NAME, ARCH, digest))
    monkeypatch.chdir(tmp_path)
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_table_names_the_published_variants() -> None:
    assert {name: item.architecture for name, item in PUBLISHED.items()} == {
        "convmixer_768_32.in1k": VARIANTS["convmixer_768_32"],
        "convmixer_1024_20_ks9_p14.in1k": VARIANTS["convmixer_1024_20"],
        "convmixer_1536_20.in1k": VARIANTS["convmixer_1536_20"],
    }


def test_weights_come_with_what_the_table_knows(hub: Hub, model: ConvMixer) -> None:
    weights = read_weights(NAME)
    assert weights.architecture == ARCH
    assert weights.classes is not None
    assert weights.classes.names[0] == "n01440764"
    assert weights.preprocessing == Preprocessing(224, 0.96, "bicubic", exif=False)
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in model.state_dict().items())


def test_a_second_read_asks_nobody(hub: Hub) -> None:
    read_weights(NAME)
    hub.served.clear()
    read_weights(NAME)
    assert hub.served == []


def test_a_file_of_that_name_wins_and_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / NAME).write_bytes(hub.content)
    weights = read_weights(NAME)
    assert hub.served == []
    assert weights.classes is not None


def test_a_name_in_another_folder_is_a_path(hub: Hub) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_weights(f"weights/{NAME}")
    assert hub.served == []


def _flipped(hub: Hub) -> None:
    hub.content = hub.content[:-1] + bytes([hub.content[-1] ^ 1])


def _etag_only(hub: Hub) -> None:
    PUBLISHED[NAME] = Published(NAME, ARCH, None)
    _flipped(hub)


@pytest.mark.parametrize("damage", [_flipped, _etag_only])
def test_content_of_another_hash_is_refused(hub: Hub, damage: Callable[[Hub], None]) -> None:
    damage(hub)
    with pytest.raises(UserError, match="SHA-256 begins") as caught:
        read_weights(NAME)
    assert caught.value.exit_code == 1


def test_a_file_that_nobody_states_a_hash_of_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, NAME, Published(NAME, ARCH, None))
    hub.etag = "0" * 40  # as the hub has it of a file outside LFS
    with pytest.raises(UserError, match="cannot be checked"):
        read_weights(NAME)


def test_offline_says_where_to_put_the_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    with pytest.raises(UserError) as caught:
        read_weights(NAME)
    assert str(caught.value) == (
        f"{NAME}: cannot be fetched from http://127.0.0.1:9: [Errno 111] Connection refused.\n"
        f"Without a connection, save http://127.0.0.1:9/timm/{NAME}/resolve/main/model.safetensors "
        f"as {NAME} in this folder."
    )
    assert caught.value.exit_code == 1


def test_a_repository_that_is_gone_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "gone.in1k", Published("gone.in1k", ARCH, None))
    with pytest.raises(UserError, match="cannot be fetched"):
        read_weights("gone.in1k")


def test_without_huggingface_hub_the_extra_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'convmixer\[hub\]'; or save http"):
        read_weights(NAME)


def test_a_near_name_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"did you mean convmixer_768_32\.in1k\?"):
        read_weights("convmixer_768_32")
    assert published.nearest(Path("best.safetensors")) is None


def test_infer_prints_names(hub: Hub, tmp_path: Path, convmixer: Command, model: ConvMixer) -> None:
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / "photo.png")
    with torch.no_grad():
        model.head.bias[281] = 100.0  # n02123045
    hub.content = safetensors.torch.save(as_timm(model.state_dict()))
    PUBLISHED[NAME] = Published(NAME, ARCH, hashlib.sha256(hub.content).hexdigest())
    done = convmixer("infer", tmp_path / "photo.png", "--checkpoint", NAME, "--format", "full", "--topk", 1)
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'photo.png'} (tabby 1.0000)\n"


def test_a_thousand_classes_without_names_are_read_as_imagenets(
    model: ConvMixer, tmp_path: Path, convmixer: Command
) -> None:
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / "photo.png")
    with torch.no_grad():
        model.head.bias[0] = 100.0
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    words = ("infer", tmp_path / "photo.png", "--checkpoint", tmp_path / "plain.pth", "--activation", "relu")
    done = convmixer(*words, "--format", "full", "--topk", 1)
    assert done.out == f"{tmp_path / 'photo.png'} (tench 1.0000)\n"
    assert "the model names no classes; its 1000 are taken for ImageNet's" in done.err
    assert "ImageNet" not in convmixer(*words, "--format=class").err
