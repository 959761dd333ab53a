"""The session on a GPU, on a CPU: its steps in small form, and those that fail, hang or lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.project import ROOT, SRC_AND_TESTS, run_python
from tests.reliability.conftest import running

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def session(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("gpu_session")


def step(session: ModuleType, name: str, code: str, *, minutes: float = 1.0, needs: tuple[str, ...] = ()) -> object:
    """A step of one process, which runs the code in the folder of the results."""
    from session_processes import Command

    def commands(given: object) -> list[object]:
        return [Command(name, ["-c", f"import os; os.chdir({str(given.results)!r})\n{code}"])]  # type: ignore[attr-defined]

    return session.Step(name, minutes, commands, needs)


GRANDCHILD = """
import subprocess, sys, time
code = "import os, sys, time; len(sys.argv) > 1 and os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
for words in ([], ["alone"]):
    child = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    print("child", child.stdout.readline(), flush=True)
print("hangs", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="needs /proc")
def test_steps_that_fail_hang_or_lack_something_leave_the_others_alone(
    session: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that hangs has two children, of which one left its process group; neither outlives it."""

    def broken(given: object) -> list[object]:
        raise OSError("no such thing")

    import session_processes

    monkeypatch.setattr(session, "MIN_SECONDS", 0.5)
    monkeypatch.setattr(session_processes, "GRACE", 1.0)
    steps = (
        step(session, "fails", "print('on its way'); open('part.json', 'w').write('1'); raise SystemExit(3)"),
        step(session, "hangs", GRANDCHILD, minutes=3 / 60),
        step(session, "lacks", "", needs=("no_such_package",)),
        session.Step("broken", 1.0, broken),
        step(session, "works", "open('found.json', 'w').write('2'); print('all is well')"),
    )
    begin = time.monotonic()
    assert session.main(["--dry_run", "--output", str(tmp_path)], steps) == 1
    assert time.monotonic() - begin < 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu_session.json", "gpu_session.zip"]
    found = json.loads((tmp_path / "gpu_session.json").read_text())["steps"]
    assert {name: entry["state"] for name, entry in found.items()} == {
        "fails": "failed",
        "hangs": "out of time",
        "lacks": "left out",
        "broken": "left out",
        "works": "done",
    }
    assert found["fails"]["processes"][0]["code"] == 3
    with zipfile.ZipFile(tmp_path / "gpu_session.zip") as archive:
        assert {"part.json", "found.json", "fails.log", "hangs.log", "gpu_session.json"} <= set(archive.namelist())
        log = archive.read("hangs.log").decode()
    pids = [int(line.split()[1]) for line in log.splitlines() if line.startswith("child")]
    assert len(pids) == 2
    assert log.endswith("hangs\ninterrupted\n")
    assert not any(map(running, pids))
    table = capsys.readouterr().out.rpartition("=== gpu_session.zip")[2].splitlines()[1:]
    assert [line.split()[0] for line in table] == ["fails", "hangs", "lacks", "broken", "works"]
    assert table[0].endswith("fails: exit 3 after 0 s: on its way")
    assert table[2].endswith("not installed: no_such_package")
    assert table[3].endswith("OSError: no such thing")
    assert table[4].endswith("all is well")


def test_the_archive_is_renewed_while_a_step_runs_and_when_the_session_is_stopped(
    session: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by the signal that ends a slot: what was found until then is in the archive."""
    renewed = []
    renew = session.renew

    def recorded(*words: Any) -> list[str]:
        renewed.append(renew(*words))
        return []

    monkeypatch.setattr(session, "RENEWED", 0.2)
    monkeypatch.setattr(session, "renew", recorded)
    code = "import signal, time; open('early', 'w').write('1'); time.sleep(1); os.kill(os.getppid(), signal.SIGTERM)\n"
    with pytest.raises(SystemExit) as stopped:
        session.main(["--dry_run", "--output", str(tmp_path)], (step(session, "long", code + "time.sleep(600)"),))
    assert stopped.value.code == 143
    assert len(renewed) >= 3
    assert "early" in zipfile.ZipFile(tmp_path / "gpu_session.zip").namelist()
    assert not list(tmp_path.glob("*.part"))


def test_the_time_of_all_steps_is_limited(session: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MIN_SECONDS", 0.5)
    steps = (step(session, "one", "import time; time.sleep(600)"), step(session, "two", "print(2)"))
    begin = time.monotonic()
    assert session.main(["--dry_run", "--minutes", "0.02", "--output", str(tmp_path)], steps) == 1
    assert time.monotonic() - begin < 15
    found = json.loads((tmp_path / "gpu_session.json").read_text())["steps"]
    assert (found["one"]["state"], found["two"]["left_out"]) == ("out of time", "no time left")


def test_the_archive_stays_below_its_limit(session: ModuleType, tmp_path: Path) -> None:
    from session_archive import renew

    results, archive = tmp_path / "results", tmp_path / "a.zip"
    results.mkdir()
    (results / "small.json").write_text("{}")
    (results / "large.bin").write_bytes(os.urandom(3 << 20))
    (results / "long.log").write_bytes(os.urandom(2 << 20))
    assert renew(results, archive, max_bytes=2 << 20) == ["large.bin"]
    assert archive.stat().st_size <= 2 << 20
    assert sorted(zipfile.ZipFile(archive).namelist()) == ["long.log", "small.json"]


def test_the_steps_fit_slots_of_ten_minutes(session: ModuleType, tmp_path: Path) -> None:
    """Those of the first slot together, and each other one by itself; tests/docs has the other slots."""
    from session_steps import FIRST, STEPS

    minutes = {given.name: given.minutes for given in STEPS}
    default = session.parse(["--output", str(tmp_path)], STEPS).minutes
    assert sum(minutes[name] for name in FIRST) <= default < 10
    assert max(minutes.values()) <= default


def test_training_takes_the_options_of_its_step(session: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    from session_steps import Session, cifar10

    from convmixer.config.commands import TRAIN as COMMAND
    from convmixer.config.loading import parse

    assert cifar10(Session(tmp_path, tmp_path)) == "it needs --cifar10 FOLDER, which holds cifar-10-batches-py"
    commands = cifar10(Session(tmp_path, tmp_path, cifar10=tmp_path))
    assert not isinstance(commands, str)
    (command,) = commands
    script, *argv = command.words
    assert Path(script).is_file()
    options = parse(COMMAND, argv).options
    assert (options.arch, options.epochs, options.eval_every) == ("convmixer_256_8", 25, 25)
    assert options.best_ckpt_root_dir == str(tmp_path / "best_ckpt")


def test_the_steps_ask_for_contenders_that_there_are(session: ModuleType) -> None:
    pytest.importorskip("timm")
    from model_speed_engines import CONTENDERS
    from session_steps import CONTENDERS as NAMES

    assert set(NAMES) <= set(CONTENDERS)


# What a machine with a GPU may lack; found nowhere, as if it were not installed.
WITHOUT = """
import sys
for name in ("pydantic", "pydantic_core", "tensorboardX", "simplejpeg", "safetensors", "onnx", "onnxruntime",
             "onnxscript", "openvino", "matplotlib", "huggingface_hub", "tensorboard", "sklearn"):
    sys.modules[name] = None
"""

# A step of training, of which a machine that has what it needs runs a test.
STEP = """
import session_steps
for name in (*session_steps.STEP, "pydantic_core"):
    del sys.modules[name]
if all(map(importlib.util.find_spec, session_steps.STEP)):
    importlib.import_module("tests.training.test_non_finite")
"""
# Where the times of a GPU's ways are kept.
KEY = """
import torch
from convmixer.arch import parse_arch
from convmixer.backends.autotune import cache
from convmixer.backends.workload import Workload
torch.cuda.get_device_name = lambda device: "some GPU"
workload = Workload(parse_arch("convmixer_8_2"), 32, 4, torch.float32, True, torch.device("cuda"))
assert cache.key_of(workload)["device"] == "some GPU"
"""


def test_what_a_gpu_machine_may_lack_is_not_imported() -> None:
    """By the scripts, by the tests that run there, nor by what these call."""
    names = """
        gpu_session network_check gpu_kernels network_profile max_batch machine model_speed
        tests.conftest tests.kernels.conftest tests.kernels.device.conftest tests.backends.conftest
        tests.backends.test_cuda_graph tests.kernels.test_compiles tests.kernels.test_fallback
        convmixer.backends.autotune.choose
    """.split()
    code = f"{WITHOUT}\nimport importlib\nfor name in {names!r}: importlib.import_module(name)\n{KEY}{STEP}"
    paths = f"{SRC_AND_TESTS}{os.pathsep}{BENCHMARKS}"
    done = run_python("-W", "ignore", "-c", code, PYTHONPATH=paths, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr


def dry_run(folder: Path, *words: str, **environment: str) -> dict[str, dict[str, object]]:
    output = folder / "output"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_session.py"), "--dry_run", "--output", str(output), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, object]] = json.loads((output / "gpu_session.json").read_text())["steps"]
    return found


def test_a_step_in_small_form(tmp_path: Path) -> None:
    found = dry_run(tmp_path, "--only", "versions")
    assert {name: entry["state"] for name, entry in found.items()} == {"versions": "done"}
    with zipfile.ZipFile(tmp_path / "output/gpu_session.zip") as archive:
        assert json.loads(archive.read("machine.json"))["versions"]["torch"] == version("torch")


@pytest.mark.slow
def test_every_step_in_small_form_on_what_a_gpu_machine_has(session: ModuleType, tmp_path: Path) -> None:
    """torch, triton, numpy, timm, tqdm, pyyaml, pillow and pytest alone; the program's own steps say what they lack.

    These two are run by tests/docs.
    """
    pytest.importorskip("timm")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    found = dry_run(tmp_path, PYTHONPATH=str(tmp_path))
    lacks = "not installed: pydantic, tensorboardX, safetensors, simplejpeg"
    left_out = {name: entry["left_out"] for name, entry in found.items() if entry["left_out"]}
    assert left_out == {"cifar10": lacks, "curves": lacks}
    assert set(found) == {given.name for given in session.STEPS}
    assert {entry["state"] for name, entry in found.items() if name not in left_out} == {"done"}
    with zipfile.ZipFile(tmp_path / "output/gpu_session.zip") as archive:
        rows = json.loads(archive.read("gpu_training.json"))["settings"][0]["rows"]
        kernels = json.loads(archive.read("gpu_kernels.json"))
        (profile,) = json.loads(archive.read("profile.json")).values()
    assert [row["name"] for row in rows if row.get("images_per_second")] == [
        "timm eager NCHW",
        "timm eager channels_last",
        "ours fused",
    ]
    assert kernels["lines"]
    assert all(line["right"] and line["ours"] > 0 for line in kernels["lines"])
    assert set(kernels["plans"]) == {"convmixer_768_32"}
    assert profile["kernels"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses(session: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert session.main(["--output", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("a CUDA GPU is needed")
    assert not (tmp_path / "none").exists()
