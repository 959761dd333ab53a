"""The root's scripts and the shell wrappers, from another folder, as a user of the model zoo calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Run, ToyOptions
from tests.project import ROOT

SCRIPTS = ROOT / "scripts"
WRAPPERS = {
    "run_distribute_train_gpu.sh": "CONFIG [--num_devices N] [--device_ids 0,1,2,3] [--checkpoint C] [--extra ARGS...]",
    "run_standalone_train_gpu.sh": "CONFIG [--device ID] [--checkpoint C] [--extra ARGS...]",
    "run_eval_gpu.sh": "CONFIG [--device ID] [--checkpoint C] [--extra ARGS...]",
    "run_eval_onnx.sh": "DATA [--onnx_path M]",
    "run_infer_gpu.sh": "DATA [--checkpoint C] [--arch A] [--output F]",
    "run_infer_onnx.sh": "DATA [--onnx_path M] [--output F]",
}
# The names of the model zoo's examples -> the wrapper that they are.
ALSO = {f"run_{kind}_train.sh": f"run_{kind}_train_gpu.sh" for kind in ("distribute", "standalone")}

HandedOn = Callable[..., tuple[list[str], str | None, str]]
Call = Callable[..., subprocess.CompletedProcess[str]]


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def wrapper(here: Path) -> Call:
    """Call a shell wrapper from the folder `here`, with this Python."""
    return lambda name, *words, **environment: run(
        "bash", SCRIPTS / name, *words, **{"PYTHON": sys.executable, **environment}
    )


@pytest.fixture
def handed_on(here: Path, wrapper: Call) -> HandedOn:
    """What a wrapper would run: the words after the interpreter, CUDA_VISIBLE_DEVICES, and stderr."""
    fake = here / "python"
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        'if sys.argv[1] == "-c": print(3)\n'  # the wrapper asks how many GPUs there are
        'else: print(json.dumps([sys.argv[1:], os.environ.get("CUDA_VISIBLE_DEVICES")]))\n'
    )
    fake.chmod(0o755)

    def call(name: str, *words: object) -> tuple[list[str], str | None, str]:
        done = wrapper(name, *words, PYTHON=str(fake))
        assert done.returncode == 0, done.stderr
        (script, *rest), devices = json.loads(done.stdout)
        assert Path(script).parent == ROOT
        return [Path(script).name, *rest], devices, done.stderr

    return call


def test_every_wrapper_can_be_run_and_is_valid_bash() -> None:
    for name in (*WRAPPERS, *ALSO):
        assert os.access(SCRIPTS / name, os.X_OK), name
        assert run("bash", "-n", SCRIPTS / name).returncode == 0, name


class TestWords:
    @pytest.mark.parametrize("name", [*WRAPPERS, *ALSO])
    def test_help(self, wrapper: Call, name: str) -> None:
        done = wrapper(name, "--help")
        name = ALSO.get(name, name)
        assert (done.returncode, done.stdout) == (0, f"usage: {name} {WRAPPERS[name]}\n")

    @pytest.mark.parametrize("name", [*WRAPPERS, *ALSO])
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "is missing"),
            (["x", "--bogus", "1"], "unknown option --bogus"),
            (["x", "-q"], "unknown option -q"),
            (["x", "y"], "unexpected argument 'y'"),
        ],
    )
    def test_wrong_use(self, wrapper: Call, here: Path, name: str, words: list[str], message: str) -> None:
        done = wrapper(name, *words)
        name = ALSO.get(name, name)
        error, usage = done.stderr.splitlines()
        assert done.returncode == 2
        assert done.stdout == ""
        assert error.startswith(f"{name}: ")
        assert message in error
        assert usage == f"usage: {name} {WRAPPERS[name]}"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--checkpoint"], "--checkpoint takes a value"),
            (["--checkpoint", ""], "--checkpoint takes a value"),
            (["--checkpoint="], "--checkpoint takes a value"),
            (["--checkpoint", "--extra", "--epochs=1"], "--checkpoint takes a value"),
            (["--checkpoint", "nowhere"], "--checkpoint: there is no nowhere"),
            (["--extra=--epochs"], "unknown option --extra"),
            (["--num_devices", "2", "--device_ids", "0,1,2"], "--num_devices is 2, --device_ids names 3"),
            (["--device_ids=0;1"], "--device_ids: '0;1' is no list as 0,1,2,3"),
            (["--device_ids=1,1"], "--device_ids: 1,1 names a device twice"),
        ],
    )
    def test_wrong_values(self, wrapper: Call, words: list[str], message: str) -> None:
        done = wrapper("run_distribute_train_gpu.sh", "digits", *words)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == f"run_distribute_train_gpu.sh: {message}"

    @pytest.mark.parametrize(
        ("name", "words", "expected"),
        [
            ("run_standalone_train_gpu.sh", "c.yaml", "train.py --config c.yaml"),
            ("run_standalone_train.sh", "c.yaml --device 1", "train.py --config c.yaml --device_id 1"),
            (
                "run_standalone_train.sh",
                "c.yaml --device=0 --extra --amp_level O0 --checkpoint x --extra",
                "train.py --config c.yaml --device_id 0 --amp_level O0 --checkpoint x --extra",
            ),
            ("run_distribute_train.sh", "c.yaml", "train.py --config c.yaml --device_num 3"),
            ("run_distribute_train.sh", "c.yaml --num_devices 4", "train.py --config c.yaml --device_num 4"),
            ("run_distribute_train.sh", "--num-devices=2 c.yaml", "train.py --config c.yaml --device_num 2"),
            (
                "run_distribute_train_gpu.sh",
                "c.yaml --num_devices 2 --extra --batch_size 48 -j 8",
                "train.py --config c.yaml --device_num 2 --batch_size 48 -j 8",
            ),
            ("run_eval_gpu.sh", "c.yaml", "eval.py --config c.yaml"),
            (
                "run_eval_gpu.sh",
                "c.yaml --checkpoint /m.ckpt --device 2 --extra --data_url /d --val_dir v",
                "eval.py --config c.yaml --device_id 2 --pretrained /m.ckpt --data_url /d --val_dir v",
            ),
            ("run_eval_onnx.sh", "/d/val", "eval_onnx.py /d/val"),
            ("run_eval_onnx.sh", "/d/val --onnx_path m.onnx", "eval_onnx.py /d/val --onnx_path m.onnx"),
            (
                "run_infer_gpu.sh",
                "/d --checkpoint m.ckpt --arch convmixer_768_32 --output=o.json",
                "infer.py /d --checkpoint m.ckpt --arch convmixer_768_32 --output o.json",
            ),
            ("run_infer_onnx.sh", "/d --output o", "infer_onnx.py /d --output o"),
        ],
    )
    def test_what_is_run(self, handed_on: HandedOn, name: str, words: str, expected: str) -> None:
        found, devices, _ = handed_on(name, *words.split())
        assert found == expected.split()
        assert devices == os.environ.get("CUDA_VISIBLE_DEVICES")

    def test_device_ids_choose_the_devices_and_their_number(self, handed_on: HandedOn) -> None:
        for words in (["--device_ids", "2,0"], ["--device_ids=2,0", "--num_devices=2"]):
            found, devices, _ = handed_on("run_distribute_train_gpu.sh", "c.yaml", *words)
            assert found == ["train.py", "--config", "c.yaml", "--device_num", "2"]
            assert devices == "2,0"

    def test_words_with_spaces_stay_whole(self, handed_on: HandedOn, here: Path) -> None:
        (here / "my weights.pth").write_text("")
        found, _, _ = handed_on(
            "run_standalone_train.sh",
            "my recipe.yaml",
            "--checkpoint",
            "my weights.pth",
            "--extra",
            "--data_url",
            "a b",
        )
        assert found[1:] == ["--config", "my recipe.yaml", "--pretrained", "my weights.pth", "--data_url", "a b"]

    def test_a_checkpoint_goes_on_and_a_weight_file_starts_anew(self, handed_on: HandedOn, here: Path) -> None:
        (here / "step_00000003").mkdir()
        (here / "w.ckpt").write_text("")
        found, _, err = handed_on("run_standalone_train_gpu.sh", "c", "--checkpoint", "step_00000003")
        assert found[3:] == ["--resume", "step_00000003"]
        assert err == ""
        found, _, err = handed_on("run_distribute_train_gpu.sh", "c", "--checkpoint", "w.ckpt", "--num_devices", "1")
        assert found[3:] == ["--device_num", "1", "--pretrained", "w.ckpt"]
        assert err == (
            "run_distribute_train_gpu.sh: w.ckpt is a weight file and no training checkpoint: "
            "a new run starts from its weights\n"
        )


class TestPython:
    """Each script once for what it is there for."""

    @pytest.mark.slow
    def test_training_goes_on_from_a_checkpoint(
        self, wrapper: Call, here: Path, toy: Path, toy_options: ToyOptions, toy_run: Run
    ) -> None:
        options = toy_options(toy, epochs=1)
        done = wrapper("run_standalone_train_gpu.sh", "small_folder", "--extra", *options)
        assert done.returncode == 0, done.stderr
        (checkpoint,) = (here / "runs/checkpoints").glob("*/*")
        assert done.stdout.splitlines()[1] == f"last: {checkpoint.relative_to(here)}"
        again = wrapper("run_standalone_train.sh", "small_folder", "--checkpoint", checkpoint, "--extra", *options)
        assert again.returncode == 0, again.stderr
        assert f"{checkpoint}: step 3, " in again.stderr
        assert len(list((here / "runs/checkpoints").iterdir())) == 1

    @pytest.mark.slow
    def test_evaluation_and_inference(self, wrapper: Call, here: Path, toy: Path, toy_run: Run) -> None:
        weights = toy_run.best / "best.safetensors"
        (here / "mine.yaml").write_text(f"data_url: {toy}\n")
        done = wrapper("run_eval_gpu.sh", "mine.yaml", "--checkpoint", weights, "--extra", "--batch_size", "8")
        assert done.returncode == 0, done.stderr
        best = max(toy_run.metrics("eval"), key=lambda entry: (entry["Top1-Acc"], -entry["step"]))
        expected = {name: best[name] for name in ("Loss", "Top1-Acc", "Top5-Acc")}
        assert done.stdout == f"eval results: {expected}\n"

        image = toy / "val/red/0.png"
        done = wrapper(
            "run_infer_gpu.sh", image, "--checkpoint", weights, "--arch", "convmixer_8_2", "--output", "a.json"
        )
        assert done.returncode == 0, done.stderr
        label = json.loads((here / "a.json").read_text())[str(image)]
        assert done.stdout == f"{image} (class: {label})\n"

    @pytest.mark.slow
    def test_root_scripts_run_from_anywhere_without_an_installation(self, here: Path, toy: Path, toy_run: Run) -> None:
        weights = toy_run.best / "best.safetensors"
        # -S leaves out site-packages' .pth files, so that the checkout is not on the path; the packages are given.
        packages = os.pathsep.join(path for path in sys.path if path.endswith("-packages"))
        python = [sys.executable, "-S"]
        done = run(*python, ROOT / "eval.py", f"--data_url={toy}", "--pretrained", weights, PYTHONPATH=packages)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("eval results: {'Loss': ")
        done = run(*python, ROOT / "infer.py", toy / "val/red", "--checkpoint", weights, PYTHONPATH=packages)
        assert done.returncode == 0, done.stderr
        assert len(json.loads((here / "predictions.json").read_text())) == 5
        done = run(*python, ROOT / "train.py", "--epochs", "none", PYTHONPATH=packages)
        assert done.returncode == 2
        assert done.stderr.startswith("convmixer: --epochs: ")

    def test_the_exit_code_is_the_programs(self, wrapper: Call, here: Path) -> None:
        done = wrapper("run_eval_gpu.sh", "digits")
        assert done.returncode == 2
        assert done.stderr == "convmixer: --pretrained: a weight file or a checkpoint folder is needed\n"
        assert list(here.iterdir()) == []
