"""Names and folders of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from convmixer.config.schema import Config
from convmixer.errors import UserError
from convmixer.runs import RunFolders, create_run

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
