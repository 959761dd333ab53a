"""Names and folders of runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.project import SRC, project_environment

from convmixer.config.schema import Config
from convmixer.errors import UserError
from convmixer.runs.folders import RunFolders, create_run, typed_command

NOON = "24-02-29_120005"


def config(folder: Path, **options: object) -> Config:
    roots = {f"{kind}_root_dir": str(folder / kind) for kind in ("summary", "ckpt", "best_ckpt")}
    return Config.model_validate({"arch": "convmixer_8_2", **roots, **options})


def test_the_name_has_time_network_and_postfix(tmp_path: Path) -> None:
    assert create_run(config(tmp_path), NOON).name == "24-02-29_120005_convmixer_8_2"
    assert create_run(config(tmp_path, model_postfix="try 2/x"), NOON).name == "24-02-29_120005_convmixer_8_2_try-2-x"


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    runs = [create_run(config(tmp_path), NOON) for _ in range(3)]
    assert [run.name for run in runs] == [
        "24-02-29_120005_convmixer_8_2",
        "24-02-29_120005-2_convmixer_8_2",
        "24-02-29_120005-3_convmixer_8_2",
    ]
    folders = [folder for run in runs for folder in (run.summary, run.checkpoints, run.best)]
    assert len(set(folders)) == 9
    assert all(folder.is_dir() for folder in folders)
    assert runs == [RunFolders.of(config(tmp_path), run.name) for run in runs]


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "ckpt").write_text("a file")
    with pytest.raises(UserError, match=rf"^{tmp_path}/ckpt.*: cannot be made: ") as caught:
        create_run(config(tmp_path), NOON)
    assert caught.value.exit_code == 1


def test_roots_that_are_one_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be three folders"):
        create_run(config(tmp_path, ckpt_root_dir=str(tmp_path / "x/../summary")), NOON)
    assert list(tmp_path.iterdir()) == []


SAY = "import sys\nfrom convmixer.runs.folders import typed_command\nprint(typed_command({words}))\n"


def said(*words: str | Path, **environment: str) -> list[str]:
    """The command that a process tells of itself, as a shell splits it."""
    env = project_environment(**environment)
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)


def test_the_command_as_it_was_typed(tmp_path: Path) -> None:
    words = ["--data_url", "my flowers", "--seed=1"]
    script = tmp_path / "train.py"
    script.write_text(SAY.format(words='["train", *sys.argv[1:]]'))
    assert said(sys.executable, "-u", script, *words) == [sys.executable, "-u", str(script), *words]

    console = tmp_path / "convmixer"
    console.write_text(f"#!{sys.executable}\n" + SAY.format(words="sys.argv[1:]"))
    console.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert said(console, "train", *words, PATH=path) == ["convmixer", "train", *words]
    assert said(console, "train", *words) == [str(console), "train", *words]

    (tmp_path / "package.py").write_text(SAY.format(words="sys.argv[1:]"))
    module = [sys.executable, "-m", "package", "train", *words]
    assert said(*module, PYTHONPATH=f"{tmp_path}:{SRC}") == module

    agent = tmp_path / "torchrun"
    agent.write_text("import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[2:]], check=True)\n")
    under_agent = [sys.executable, str(agent), "--nproc_per_node=2", str(script), *words]
    assert said(*under_agent, TORCHELASTIC_RUN_ID="7") == under_agent


def test_the_command_of_a_call_from_python_and_of_a_process_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed_command(["train", "--epochs", "1"]) == "convmixer train --epochs 1"
    monkeypatch.setenv("CONVMIXER_COMMAND", "convmixer train --device_num 2")
    assert typed_command(["train", "--device_num", "2"]) == "convmixer train --device_num 2"
