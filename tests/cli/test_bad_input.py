"""What a user gets wrong: one or two plain lines, the right exit code, and no folder left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import Command, Run, ToyOptions

from convmixer.arch import architecture
from convmixer.model import ConvMixer
from convmixer.weights.write import write_weights

WRONG_USE, RUN_FAILED = 2, 1

Refuse = Callable[..., None]


@pytest.fixture
def refuse(convmixer: Command, here: Path) -> Refuse:
    """Run a command that must fail: `refuse(code, [words of the message], *command line)`."""

    def check(code: int, message: list[object], *words: object) -> None:
        before = sorted(here.iterdir())
        done = convmixer(*words)
        assert done.code == code, done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        assert len(done.error.splitlines()) <= 2
        assert [str(part) for part in message if str(part) not in done.error] == []
        assert sorted(here.iterdir()) == before

    return check


class TestData:
    def test_no_folder(self, refuse: Refuse, toy_options: ToyOptions, tmp_path: Path) -> None:
        refuse(WRONG_USE, ["--data_url", tmp_path / "nowhere"], "train", *toy_options(tmp_path / "nowhere"))

    def test_no_split(self, refuse: Refuse, toy_options: ToyOptions, toy: Path) -> None:
        refuse(WRONG_USE, ["--train_dir", toy / "training"], "train", *toy_options(toy, train_dir="training"))
        refuse(WRONG_USE, ["--val_dir", toy / "test"], "train", *toy_options(toy, val_dir="test"))

    def test_a_folder_of_images_without_classes(self, refuse: Refuse, toy_options: ToyOptions, toy: Path) -> None:
        words = toy_options(toy, train_dir="train/red")
        refuse(WRONG_USE, [toy / "train/red", "no folders of classes"], "train", *words)

    def test_an_empty_class(self, refuse: Refuse, toy_options: ToyOptions, own_toy: Path) -> None:
        (own_toy / "train/white").mkdir()
        refuse(RUN_FAILED, [own_toy / "train/white", "no images"], "train", *toy_options(own_toy))

    def test_a_single_class(self, refuse: Refuse, toy_options: ToyOptions, own_toy: Path) -> None:
        for name in ("green", "red"):
            shutil.rmtree(own_toy / "train" / name)
        refuse(RUN_FAILED, [own_toy / "train", "'blue'"], "train", *toy_options(own_toy))

    def test_a_class_that_was_not_trained_on(self, refuse: Refuse, toy_options: ToyOptions, own_toy: Path) -> None:
        shutil.rmtree(own_toy / "train/red")
        refuse(RUN_FAILED, [own_toy / "val", "'red'"], "train", *toy_options(own_toy))

    def test_another_number_of_classes(self, refuse: Refuse, toy_options: ToyOptions, toy: Path) -> None:
        refuse(WRONG_USE, ["num_classes", "is 10", "has 3"], "train", *toy_options(toy, num_classes=10))

    def test_only_text_for_images(self, convmixer: Command, toy_options: ToyOptions, own_toy: Path) -> None:
        for image in (own_toy / "train").glob("*/*"):
            image.write_text("no image")
        done = convmixer("train", *toy_options(own_toy))
        assert (done.code, done.out) == (RUN_FAILED, "")
        assert f"{own_toy / 'train'}/" in done.error
        assert len(done.error.splitlines()) <= 2

    def test_no_image_to_classify(self, refuse: Refuse, toy_run: Run, tmp_path: Path) -> None:
        weights = f"--checkpoint={toy_run.best / 'best.safetensors'}"
        refuse(WRONG_USE, ["DATA"], "infer", weights)
        refuse(WRONG_USE, [tmp_path / "none.jpg"], "infer", tmp_path / "none.jpg", weights)
        (tmp_path / "empty").mkdir()
        refuse(WRONG_USE, [tmp_path / "empty", "--recursive"], "infer", tmp_path / "empty", weights)


class TestRecipe:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"epochs: [1, 2", ["mine.yaml, line 1", "YAML"]),
            (b"epochs: 1\n\tbatch_size: 2\n", ["mine.yaml, line 2", "YAML"]),
            (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", ["mine.yaml", "text"]),
            (b"just words", ["mine.yaml", "option: value"]),
            (b"- epochs: 1\n", ["mine.yaml", "list"]),
            (b"epocs: 3\n", ["mine.yaml", "epocs", "did you mean epochs?"]),
            (b"epochs: many\n", ["mine.yaml: epochs", "'many'"]),
            (b"epochs: yes\n", ["mine.yaml: epochs", "True"]),
            (b"mixup: -1\n", ["mine.yaml: mixup", "greater than or equal to 0", "-1"]),
            (b"optimizer: adamv\n", ["mine.yaml: optimizer", "'adamw'", "'adamv'"]),
            (b"arch: resnet50\n", ["mine.yaml: arch", "'resnet50'"]),
            (b"auto_augment: rnd-m9\n", ["mine.yaml: auto_augment", "rnd-m9"]),
            (b"epochs: !!python/object/apply:os.system ['touch runs']\n", ["mine.yaml, line 1", "YAML"]),
        ],
    )
    def test_content(self, refuse: Refuse, here: Path, toy: Path, content: bytes, message: list[str]) -> None:
        (here / "mine.yaml").write_bytes(content)
        refuse(WRONG_USE, message, "train", "--config", "mine.yaml", "--data_url", toy)

    def test_no_such_recipe(self, refuse: Refuse) -> None:
        refuse(
            WRONG_USE,
            ["--config", "convmixer_768_23", "did you mean convmixer_768_32?"],
            "train",
            "--config=convmixer_768_23",
        )
        refuse(WRONG_USE, ["--config", "nowhere/x.yaml", "shipped: "], "eval", "--config", "nowhere/x.yaml")


class TestOptions:
    @pytest.mark.parametrize("command", ["train", "eval", "infer"])
    def test_unknown(self, refuse: Refuse, command: str) -> None:
        refuse(WRONG_USE, ["--bach_size", "did you mean --batch_size?"], command, "--bach_size", "3")
        refuse(WRONG_USE, ["--qqq"], command, "--qqq=1")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--epochs", "0"], ["--epochs", "greater than or equal to 1", "'0'"]),
            (["--re_prob=1.5"], ["--re_prob", "less than or equal to 1", "'1.5'"]),
            (["--base_lr", "fast"], ["--base_lr", "'fast'"]),
            (["--base_lr", "nan"], ["--base_lr", "finite"]),
            (["--beta", "0.9"], ["--beta"]),
            (["--beta", "0.9,1.5"], ["--beta", "0.9 1.5"]),
            (["--with_ema", "maybe"], ["'maybe'"]),
            (["--with_ema=maybe"], ["--with_ema", "'maybe'"]),
            (["--epochs"], ["--epochs"]),
            (["--set", "imagenette"], ["--set", "'imagenette'"]),
            (["-a", "convmixer"], ["--arch", "'convmixer'"]),
            (["--image_size", "8", "9"], ["'9'"]),
            (["--mean", "0.5", "0.5"], ["mean", "2 values", "3 channels"]),
            (["--std", "0", "1", "1"], ["std", "greater than 0"]),
            (["--in_chans", "2"], ["in_chans", "2"]),
            (["--start_epoch", "2"], ["start_epoch", "is 2", "2 epochs"]),
            (["--amp_level", "O4"], ["--amp_level", "'O4'"]),
            (["--seed=1", "--train_num_samples", "9" * 400], ["--train_num_samples", "63 bits"]),
            (["--batch_size", "99999999"], ["--batch_size", "65536"]),
            (["--patch_size=9"], ["image_size", "8 x 8", "9 x 9"]),
            (["--image_size=3", "--batch_size=1"], ["batch_size", "BatchNorm", "at least 4"]),
            (["--epochs="], ["--epochs"]),
            (["--summary_root_dir=x", "--ckpt_root_dir=./x"], ["must be three folders"]),
        ],
    )
    def test_values(
        self,
        refuse: Refuse,
        toy_options: ToyOptions,
        toy: Path,
        words: list[str],
        message: list[str],
    ) -> None:
        refuse(WRONG_USE, message, "train", *toy_options(toy), *words)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without a GPU")
    def test_devices_that_are_not_there(self, refuse: Refuse, toy_options: ToyOptions, toy: Path) -> None:
        refuse(WRONG_USE, ["--device_target", "no GPU"], "train", *toy_options(toy), "--device_target=GPU")
        refuse(WRONG_USE, ["--device_target", "torch_npu"], "train", *toy_options(toy), "--device_target=Ascend")


class TestWeights:
    """Both commands that need weights, and training that starts from some."""

    @pytest.fixture(params=["eval", "infer", "train"])
    def words(self, request: pytest.FixtureRequest, toy: Path, toy_options: ToyOptions) -> list[str]:
        """A command line that ends where the path of the weights comes."""
        return {
            "eval": ["eval", f"--data_url={toy}", "--pretrained"],
            "infer": ["infer", str(toy / "val/red/0.png"), "--checkpoint"],
            "train": ["train", *toy_options(toy), "--pretrained"],
        }[request.param]

    def test_left_out(self, refuse: Refuse, words: list[str]) -> None:
        if words[0] != "train":
            refuse(WRONG_USE, [words[-1], "is needed"], *words[:-1])

    def test_not_found(self, refuse: Refuse, words: list[str]) -> None:
        refuse(WRONG_USE, ["nowhere.ckpt: no such file"], *words, "nowhere.ckpt")

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"not weights\n", "a text file"),
            (b"", "an empty file"),
            (b"\xff\xd8\xff\xe0", "JPEG"),
            (b"\0" * 99, "unknown"),
        ],
        ids=["text", "empty", "picture", "zeros"],
    )
    def test_no_weights(self, refuse: Refuse, words: list[str], tmp_path: Path, content: bytes, kind: str) -> None:
        (tmp_path / "file.ckpt").write_bytes(content)
        refuse(WRONG_USE, [tmp_path / "file.ckpt", kind], *words, tmp_path / "file.ckpt")

    def test_a_folder_without_weights(self, refuse: Refuse, words: list[str], tmp_path: Path) -> None:
        refuse(WRONG_USE, [tmp_path], *words, tmp_path)

    def test_a_flipped_bit(self, refuse: Refuse, words: list[str], tmp_path: Path, toy_run: Run) -> None:
        content = bytearray((toy_run.best / "best.safetensors").read_bytes())
        content[-9] ^= 1
        (tmp_path / "old.safetensors").write_bytes(content)
        refuse(WRONG_USE, [tmp_path / "old.safetensors", "SHA-256"], *words, tmp_path / "old.safetensors")

    def test_another_network(self, refuse: Refuse, words: list[str], toy_run: Run) -> None:
        other = [word for word in words[1:-1] if not word.startswith("--arch")]
        weights = toy_run.best / "best.safetensors"
        refuse(
            WRONG_USE,
            [weights, "convmixer_8_2", "not of convmixer_8_3"],
            words[0],
            *other,
            "--arch=convmixer_8_3",
            words[-1],
            weights,
        )

    def test_another_number_of_classes(self, refuse: Refuse, toy: Path, tmp_path: Path) -> None:
        network = architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)
        write_weights(tmp_path / "five.safetensors", ConvMixer(network).state_dict(), architecture=network)
        message = [tmp_path / "five.safetensors", "5 classes", "the data has 3"]
        refuse(WRONG_USE, message, "eval", f"--data_url={toy}", "--pretrained", tmp_path / "five.safetensors")


class TestOutput:
    def test_a_root_that_is_a_file(self, refuse: Refuse, toy_options: ToyOptions, toy: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        words = toy_options(
            toy,
            ckpt_root_dir=tmp_path / "file" / "x",
            **{f"{kind}_root_dir": tmp_path / kind for kind in ("summary", "best_ckpt")},
        )
        refuse(RUN_FAILED, [tmp_path / "file", "cannot be made"], "train", *words)

    def test_resume_of_what_is_no_run(self, refuse: Refuse, toy_options: ToyOptions, toy: Path, tmp_path: Path) -> None:
        refuse(WRONG_USE, ["--resume", "nowhere"], "train", *toy_options(toy), "--resume", "nowhere")
        refuse(WRONG_USE, ["--resume", tmp_path], "train", *toy_options(toy), "--resume", tmp_path)


@pytest.mark.parametrize("command", ["eval", "infer", "export"])
def test_images_smaller_than_a_patch(refuse: Refuse, toy: Path, toy_run: Run, command: str) -> None:
    weights = toy_run.best / "best.safetensors"
    words = [str(toy / "val/red"), f"--checkpoint={weights}"] if command == "infer" else [f"--pretrained={weights}"]
    words += [] if command == "infer" else [f"--data_url={toy}"]
    refuse(WRONG_USE, ["image_size", "1 x 1 pixels", "a patch of 2 x 2"], command, *words, "--image_size=1")


@pytest.mark.parametrize("word", ["--freeze", "--unfreeze_epoch=1"])
def test_one_patch_and_one_image_are_no_fault_where_batchnorm_does_not_learn(
    word: str, convmixer: Command, toy: Path, toy_options: ToyOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = convmixer("train", *toy_options(toy, image_size=2, batch_size=1, epochs=1), word)
    assert done.code == 0, done.err


@pytest.mark.parametrize("command", ["eval", "infer"])
def test_a_pipe_is_no_model(refuse: Refuse, toy: Path, tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    words = [str(toy / "val/red"), "--checkpoint"] if command == "infer" else [f"--data_url={toy}", "--pretrained"]
    refuse(WRONG_USE, [tmp_path / "pipe", "neither a file nor a folder"], command, *words, tmp_path / "pipe")
