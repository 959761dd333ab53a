"""The exported folder but for what a browser makes of it: where its files come from, what it may replace, wrong use."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest
from tests.conftest import Command, Run
from tests.exporters.conftest import lively_model, metadata_of

from convmixer.data.classes import ClassMap
from convmixer.errors import UserError
from convmixer.exporters import onnxruntime_web
from convmixer.exporters.formats.web import FORMAT
from convmixer.exporters.onnxruntime_web import runtime_files
from convmixer.exporters.target import publish, target_of
from convmixer.exporters.web import class_names

CONTENT = {"dist/loader.mjs": b"export default 1", "dist/engine.wasm": b"\0asm" * 100}
WRITTEN = [
    "LICENSE.txt",
    "answers.js",
    "classify.js",
    "convmixer.json",
    "export.json",
    "icon.svg",
    "index.html",
    "model.onnx",
    "model.onnx.parity.json",
    "orientation.js",
    "ort/engine.wasm",
    "ort/loader.mjs",
    "page.js",
    "style.css",
]


def archive(content: dict[str, bytes]) -> bytes:
    """An npm package of these files, and one that is not asked for, which would lie outside its folder."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in {
                "../../escaped": b"",
                **{f"package/{name}": data for name, data in content.items()},
            }.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return buffer.getvalue()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of onnxruntime-web, as its .tgz; no cache, and a folder of programs without npm."""
    path = tmp_path / "package.tgz"
    path.write_bytes(archive(CONTENT))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(onnxruntime_web, "FILES", digests)
    digest = b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(onnxruntime_web, "INTEGRITY", f"sha512-{digest}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return path


def npm(folder: Path, script: str) -> None:
    """A program of that name in `folder`/programs."""
    program = folder / "programs/npm"
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    program.chmod(0o755)


def test_the_archive_and_the_folder_are_taken(package: Path, tmp_path: Path) -> None:
    assert runtime_files(str(package)) == CONTENT
    folder = tmp_path / "unpacked"
    (folder / "dist").mkdir(parents=True)
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    assert runtime_files(str(folder)) == CONTENT
    (folder / "dist/engine.wasm").write_bytes(b"another")
    with pytest.raises(UserError, match=r"unpacked is not the npm package onnxruntime-web \d"):
        runtime_files(str(folder))


def test_another_archive_is_refused_before_it_is_read(package: Path) -> None:
    package.write_bytes(package.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"package.tgz is not the npm package"):
        runtime_files(str(package))


def test_npm_is_asked_once(package: Path, tmp_path: Path) -> None:
    npm(tmp_path, f'echo "$1 $2" >> {tmp_path}/asked; cp {package} onnxruntime-web.tgz')
    assert runtime_files(None) == CONTENT
    assert runtime_files(None) == CONTENT
    assert (tmp_path / "asked").read_text() == f"pack onnxruntime-web@{onnxruntime_web.VERSION}\n"
    # What was damaged since is fetched again.
    (damaged,) = (tmp_path / "cache").rglob("engine.wasm")
    damaged.write_bytes(b"")
    assert runtime_files(None) == CONTENT
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "there is no npm to fetch it; --ort_web names"),
        (
            "echo npm error code ENOTFOUND >&2; exit 1",
            r"npm could not fetch onnxruntime-web .* \(ENOTFOUND\); --ort_web",
        ),
        ("exit 1", "it gave no reason"),
        ("echo something else > onnxruntime-web.tgz", "does not have the package's SHA-512"),
        ("exit 0", "does not have the package's SHA-512"),
    ],
)
def test_where_npm_is_no_use_one_line_says_so(package: Path, tmp_path: Path, script: str | None, message: str) -> None:
    if script is not None:
        npm(tmp_path, script)
    with pytest.raises(UserError, match=message) as caught:
        runtime_files(None)
    assert caught.value.exit_code == (2 if script is None else 1)
    assert "\n" not in str(caught.value)


@pytest.fixture
def words(package: Path, toy: Path, toy_run: Run) -> list[object]:
    weights = toy_run.best / "best.safetensors"
    return ["export", "--file_format=web", "--pretrained", weights, "--data_url", toy, "--ort_web", package]


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_written_and_replaced(convmixer: Command, here: Path, toy: Path, words: list[object]) -> None:
    done = convmixer(*words)
    assert (done.code, done.out) == (0, "convmixer_8_2_web\n"), done.err
    page = here / "convmixer_8_2_web"
    assert written(page) == WRITTEN
    facts = json.loads((page / "convmixer.json").read_text())
    assert (facts["names"], facts["record"]["embed_preprocess"]) == (["blue", "green", "red"], True)
    assert json.loads((page / "model.onnx.parity.json").read_text())["difference"] < 1e-5
    assert "MIT License" in (page / "LICENSE.txt").read_text()
    # The network in it is one as any other.
    again = convmixer("infer-onnx", toy / "val/red/0.png", "--onnx_path", page / "model.onnx", "-o", "answers.json")
    assert again.code == 0, again.err
    (here / "answers.json").unlink()

    assert convmixer(*words, "--opset=19").code == 0
    assert written(page) == WRITTEN
    marked = json.loads((page / "export.json").read_text())["files"]
    assert marked["model.onnx"] == hashlib.sha256((page / "model.onnx").read_bytes()).hexdigest()
    assert list(here.iterdir()) == [page]


def publish_page(target: Path) -> None:
    """A page of one file, put in its place as an exported one is."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder, target.name)
        (made / "ort").mkdir(parents=True)
        (made / "ort/engine.wasm").write_bytes(b"new")
        publish(Path(folder), target, FORMAT)


def test_a_page_takes_the_place_of_one_or_of_an_empty_folder(here: Path) -> None:
    (here / "page").mkdir()
    for _ in range(2):
        assert target_of("page", "convmixer_8_2", FORMAT) == Path("page")
        publish_page(here / "page")
        assert written(here) == ["page/export.json", "page/ort/engine.wasm"]


@pytest.mark.parametrize("change", ["added", "edited", "foreign", "file", "link", "here"])
def test_what_others_made_is_not_replaced(here: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    page = here / "page"
    if change == "file":
        page.write_text("mine")
    elif change == "foreign":
        page.mkdir()
        (page / "index.html").write_text("mine")
    else:
        publish_page(page)
    if change == "added":
        (page / "ort/photo.jpg").write_text("mine")
    elif change == "edited":
        (page / "ort/engine.wasm").write_bytes(b"mine")
    elif change == "link":
        page.rename(here / "elsewhere")
        page.symlink_to(here / "elsewhere")
    elif change == "here":
        monkeypatch.chdir(page)
    with pytest.raises(UserError, match=r"^--output: .* name another") as caught:
        target_of(str(page), "convmixer_8_2", FORMAT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--opset=17"], 2, "needs --opset 18 or more"),
        (["--interpolation=lanczos"], 2, "not lanczos"),
        (["--output=gone/page"], 2, "there is no folder gone"),
        (["--ort_web=gone.tgz"], 2, "--ort_web: there is no file or folder gone.tgz"),
        (["--file_format=ONNX"], 2, "--ort_web: is for WEB, not for ONNX"),
        (["--tolerance=1e-12"], 1, "more than --tolerance"),
    ],
)
def test_wrong_use_leaves_nothing(
    convmixer: Command, here: Path, words: list[object], more: list[str], code: int, message: str
) -> None:
    done = convmixer(*words, *more)
    assert (done.code, list(here.iterdir())) == (code, [])
    assert message in done.error
    assert len(done.error.splitlines()) <= 2


def test_a_folder_stays_as_it_was_where_the_export_fails(convmixer: Command, here: Path, words: list[object]) -> None:
    assert convmixer(*words, "--output=page").code == 0
    before = (here / "page/model.onnx").read_bytes()
    assert convmixer(*words, "--output=page", "--tolerance=1e-12").code == 1
    assert written(here / "page") == WRITTEN
    assert (here / "page/model.onnx").read_bytes() == before


def test_classes_are_named_as_answers_name_them() -> None:
    model = lively_model("convmixer_8_1", num_classes=2)
    assert class_names(metadata_of(model, classes=ClassMap(("n01440764", "n01443537")))) == ["tench", "goldfish"]
    assert class_names(metadata_of(model, classes=None)) == ["0", "1"]
