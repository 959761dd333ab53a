from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from PIL import Image

from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files, ignored_line, open_files, refuse_nested
from convmixer.data.formats import signatures
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.data.source import Source
from convmixer.data.splits import open_split
from convmixer.errors import UserError


def write(path: Path, colour: str = "red", format: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path, format)
    return path


def names(source: Source, root: Path) -> list[str]:
    return [Path(source.name(i)).relative_to(root).as_posix() for i in range(len(source))]


def train_split(root: Path) -> Source:
    return open_split("ImageNet", str(root), "train", train=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train: b (2), a (1); val: b (1)."""
    for name in ("train/b/2.png", "train/b/1.JPEG", "train/a/3.jpg", "val/b/9.bmp"):
        write(tmp_path / name)
    return tmp_path


def test_classes_and_files_come_sorted(root: Path) -> None:
    source = train_split(root)
    assert source.classes.names == ("a", "b")
    assert names(source, root / "train") == ["a/3.jpg", "b/1.JPEG", "b/2.png"]
    assert source.labels.tolist() == [0, 1, 1]
    assert source.read(0) == (root / "train/a/3.jpg").read_bytes()


def test_class_order_is_plain_sorted(tmp_path: Path) -> None:
    for name in ("10", "9", "a", "B", "é"):
        write(tmp_path / "train" / name / "1.png")
    assert train_split(tmp_path).classes.names == ("10", "9", "B", "a", "é")


def test_extensions_in_any_case_and_files_deeper_down(tmp_path: Path) -> None:
    for name in ("1.JPG", "2.JpEg", "3.PNG", "4.Webp", "5.BMP", "x/y/6.jpg", "x/0.png"):
        write(tmp_path / "train/a" / name)
    write(tmp_path / "train/b/1.png")
    found = names(train_split(tmp_path), tmp_path / "train")
    assert found == [
        *(f"a/{n}" for n in ("1.JPG", "2.JpEg", "3.PNG", "4.Webp", "5.BMP", "x/0.png", "x/y/6.jpg")),
        "b/1.png",
    ]


def test_what_is_no_image_is_ignored_and_counted(root: Path) -> None:
    before = names(train_split(root), root)
    for name in ("a/Thumbs.db", "a/.DS_Store", "b/notes.txt", "README.md"):  # 4
        (root / "train" / name).write_text("x")
    write(root / "train/a/._3.jpg")  # 5
    write(root / "train/.ipynb_checkpoints/3.jpg")  # 6
    write(root / "train/a/.ipynb_checkpoints/3.jpg")  # 7
    source = train_split(root)
    assert names(source, root) == before
    assert isinstance(source, Files)
    assert source.ignored == {
        "beside the class folders": 2,
        ".db": 1,
        "name begins with a dot": 3,
        ".txt": 1,
    }
    line = ignored_line(source.ignored, "the training images")
    assert line.startswith("7 other files beside the training images are ignored: name begins with a dot 3, ")


def test_links_to_files_and_folders_are_read_and_loops_end(root: Path) -> None:
    (root / "train/a/link.png").symlink_to(root / "train/b/2.png")
    (root / "train/a/self").symlink_to(root / "train/a", target_is_directory=True)
    (root / "train/c").symlink_to(root / "val/b", target_is_directory=True)
    assert names(train_split(root), root / "train") == ["a/3.jpg", "a/link.png", "b/1.JPEG", "b/2.png", "c/9.bmp"]


def test_val_labels_are_those_of_the_training_classes(root: Path) -> None:
    val = open_split("imagenet", str(root), "val", train=False, classes=train_split(root).classes)
    assert val.labels.tolist() == [1]
    assert val.classes.names == ("a", "b")


def test_val_class_that_training_lacks_is_refused_by_name(root: Path) -> None:
    write(root / "val/zebra/1.png")
    with pytest.raises(UserError, match="'zebra'") as refusal:
        open_split("ImageNet", str(root), "val", train=False, classes=ClassMap(("a", "b")))
    assert refusal.value.exit_code == 1


def test_empty_class_folder_is_refused_by_name(root: Path) -> None:
    (root / "train/hollow").mkdir()
    (root / "train/hollow/Thumbs.db").write_text("x")
    with pytest.raises(UserError, match="hollow holds no images") as refusal:
        train_split(root)
    assert refusal.value.exit_code == 1


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train/only/1.png")
    with pytest.raises(UserError, match="single class, 'only'") as refusal:
        train_split(tmp_path)
    assert refusal.value.exit_code == 1


def test_images_without_class_folders_are_refused_with_the_layout(tmp_path: Path) -> None:
    write(tmp_path / "train/1.png")
    with pytest.raises(UserError, match=r"train/<class>/<image>") as refusal:
        train_split(tmp_path)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("url", "train", "option", "path"),
    [
        (None, True, "--data_url", "folder"),
        ("nowhere", True, "--data_url", "nowhere"),
        (".", True, "--train_dir", "train"),
        (".", False, "--val_dir", "val"),
    ],
)
def test_missing_folder_names_the_option_and_the_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, train: bool, option: str, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        open_split("ImageNet", url, "train" if train else "val", train=train)
    assert refusal.value.exit_code == 2
    assert option in str(refusal.value)
    assert (str(tmp_path / path) if url else path) in str(refusal.value)


def test_cifar10_batches_under_imagenet_point_to_the_right_set(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match="--set cifar10"):
        train_split(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_class_folder_is_refused(root: Path) -> None:
    (root / "train/a").chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        train_split(root)
    (root / "train/a").chmod(0o755)


@pytest.mark.parametrize("name", ["new\nline.png", "<script>.png", "ünï.png", os.fsdecode(b"\xff\xfe.png"), "a b .png"])
def test_strange_names_are_read(root: Path, name: str) -> None:
    path = write(root / "train/a" / name)
    source = pickle.loads(pickle.dumps(train_split(root)))
    index = next(i for i in range(len(source)) if source.name(i) == str(path))
    assert source.read(index) == path.read_bytes()


def test_the_folder_is_only_read(root: Path) -> None:
    (root / "train/a/broken.jpg").write_bytes(b"not a JPEG")

    def state() -> list[tuple[str, int, str]]:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return [(str(p), p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]

    before = state()
    batches = list(read_batches(train_split(root), Preprocessing(size=4), 2))
    assert sum(len(batch.bad) for batch in batches) == 1
    assert state() == before


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("c.png", "a.JPG", "b.Jpeg", "deep/d.png", ".hidden.png", "odd.png/e.png", "f.bmp", "g.tiff", "h.webp"):
        write(tmp_path / name)
    for name in ("i.jfif", "j.JPE"):
        write(tmp_path / name, format="JPEG")
    (tmp_path / "notes.txt").write_text("x")
    flat = ["a.JPG", "b.Jpeg", "c.png", "f.bmp", "g.tiff", "h.webp", "i.jfif", "j.JPE"]
    files = open_files(tmp_path)
    assert names(files, tmp_path) == flat
    assert files.ignored == {".txt": 1, "name begins with a dot": 1}
    deep = ["deep/d.png", "odd.png/e.png"]
    assert sorted(names(open_files(tmp_path, recursive=True), tmp_path)) == sorted(flat + deep)
    assert [open_files(str(tmp_path / "f.bmp")).name(0)] == [str(tmp_path / "f.bmp")]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "below/1.png")
    (tmp_path / "a.txt").write_text("x")
    for path, words in ((tmp_path / "gone", "no image or folder"), (tmp_path, r"--recursive.*ignored: \.txt 1")):
        with pytest.raises(UserError, match=words) as refusal:
            open_files(path)
        assert refusal.value.exit_code == 2
        assert str(path) in str(refusal.value)


def test_heic_without_its_extra_is_ignored_in_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if signatures.HAS_HEIC:
        pytest.skip("pi_heif is installed")
    write(tmp_path / "1.png")
    (tmp_path / "2.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    line = ignored_line(open_files(tmp_path).ignored, "the images")
    assert line == ("1 other file beside the images is ignored: .heic 1; HEIC takes pip install 'convmixer[heif]'")
    (batch,) = read_batches(open_files(tmp_path / "2.HEIC"), Preprocessing(size=4), 1)
    assert batch.bad == [(0, "HEIC is not read; HEIC takes pip install 'convmixer[heif]'")]


def test_names_in_two_unicode_forms_are_one_class(root: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    write(root / "train" / composed / "1.png")
    write(root / "train" / apart / "2.png")
    write(root / "val" / apart / "3.png")
    train = train_split(root)
    assert train.classes.names == ("a", "b", composed)
    assert names(train, root / "train")[-2:] == [f"{apart}/2.png", f"{composed}/1.png"]  # as they are on disk
    assert train.labels.tolist()[-2:] == [2, 2]
    for known in (train.classes, ClassMap(("a", "b", apart))):  # the latter from weights of an older version
        val = open_split("ImageNet", str(root), "val", train=False, classes=known)
        assert val.labels.tolist() == [1, 2]
        assert known.index(apart) == known.index(composed) == 2


def test_the_folders_of_runs_are_no_class(root: Path) -> None:
    """Beside the class folders, inside one, and where the options give the outputs other folders."""
    from convmixer.config.schema import Config
    from convmixer.runs.folders import create_run

    before = names(train_split(root), root)
    train = root / "train"
    for folder in (train / "runs", train / "out"):
        config = Config(
            arch="convmixer_256_8",
            model_postfix="x",
            summary_root_dir=str(folder / "summary_root_dir"),
            ckpt_root_dir=str(folder / "ckpt_root_dir"),
            best_ckpt_root_dir=str(folder / "best_ckpt_root_dir"),
        )
        for _ in range(2):  # the second is called ...-2
            run = create_run(config, "26-11-27_001122")
            write(run.summary / "first_batch.png")
    write(train / run.name / "x.png")
    source = train_split(root)
    assert source.classes.names == ("a", "b")
    assert names(source, root) == before
    assert source.ignored == {"folder of a run": 13}
    assert names(open_files(train, recursive=True), root) == before


def test_evaluation_images_below_the_training_folder_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="would be a class of it") as refusal:
        refuse_nested(root, root / "val")
    assert refusal.value.exit_code == 2
    refuse_nested(root / "train", root / "val")
    refuse_nested(root / "train", root / "train")


def test_a_link_to_itself_beside_the_classes_is_no_class(root: Path) -> None:
    (root / "train/loop").symlink_to(root / "train/loop")
    source = train_split(root)
    assert source.classes.names == ("a", "b")
    assert source.ignored == {"beside the class folders": 1}
    assert open_files(root / "train/a").ignored == {}


def test_files_without_labels(tmp_path: Path) -> None:
    files = Files([write(tmp_path / "1.png"), write(tmp_path / "2.png")])
    assert files.labels.tolist() == [-1, -1]
    assert len(files.classes) == 0
    assert files.name(1) == str(tmp_path / "2.png")
