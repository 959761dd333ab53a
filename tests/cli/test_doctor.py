"""`doctor`: what it says of this machine, and of one with each fault made for real."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import stat
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import Command

from convmixer.arch import architecture
from convmixer.doctor import engine, machine
from convmixer.doctor.check_result import CheckResult, healthy, to_text
from convmixer.machine import usable_cores
from convmixer.model import ConvMixer
from convmixer.network_costs import max_batch, parameters

GIB = 1 << 30
Usage = namedtuple("Usage", "total used free")


def test_this_machine_is_fit(convmixer: Command, here: Path) -> None:
    before = sorted(here.iterdir())
    done = convmixer("doctor", "--json", "doctor.json")
    assert done.code == 0, done.out
    record = json.loads((here / "doctor.json").read_text())
    assert record["healthy"] is True
    answers = {answer["name"]: answer for answer in record["answers"]}
    assert {"python", "packages", "processor", "memory", "shared memory", "disk", "torch", "forward pass"} <= set(
        answers
    )
    assert answers["torch"]["found"].startswith(torch.__version__)
    assert f"numpy {version('numpy')}" in answers["packages"]["found"]
    assert " ms (" in answers["forward pass"]["found"]
    assert " MiB/s" in answers["disk"]["found"]
    for answer in answers.values():
        assert answer["found"] in done.out
        assert (answer["status"] == "ok") == (answer["fix"] == "")
    # The file that measured the disk is gone, and the folders of runs are not made.
    assert sorted(here.iterdir()) == [*before, here / "doctor.json"]


def test_an_error_is_exit_1_with_its_fix(convmixer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_torch(name: str) -> object:
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return importlib.__import__(name)

    monkeypatch.setattr(importlib, "import_module", no_torch)
    done = convmixer("doctor")
    assert done.code == 1
    assert "error   torch" in done.out
    assert "libcudart.so.13: cannot open shared object file" in done.out
    assert "fix: pip install 'convmixer[torch]'" in done.out
    # The checks that need no torch were made all the same.
    assert "ok      python" in done.out


def test_only_what_every_run_needs_makes_it_unhealthy() -> None:
    warning = CheckResult("gpu", "warning", "there", "install a driver")
    assert healthy([warning, CheckResult("python", "ok", "3.11")])
    assert not healthy([warning, CheckResult("torch", "error", "none", "install it")])
    assert to_text([warning]).splitlines() == [
        "warning gpu  there",
        "             fix: install a driver",
        "",
        "1 checks: 0 errors, 1 warnings",
    ]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CORE", ("numpy", "no-such-package"))
    monkeypatch.setattr(machine, "_version", lambda name: None if name in ("no-such-package", "Jinja2") else "1.0")
    answer = machine.packages()
    assert answer.status == "error"
    assert answer.fix == "pip install no-such-package; pip install 'convmixer[torch]'"


def test_the_extras_that_lack_a_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_version", lambda name: "1.0" if name in ("fsspec", "openvino") else None)
    there, _, lacking = machine.extras().found.partition("; not installed: ")
    assert there == "openvino 1.0, fsspec 1.0"
    assert "convmixer[remote] (images and tar shards at an address)" in lacking  # aiohttp is not there
    assert "convmixer[openvino]" not in lacking
    # Of the engine's packages nothing is said here where torch is missing, which has a check of its own.
    assert "convmixer[torch]" not in lacking + machine.packages().fix


def test_small_shared_memory_names_the_container_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Docker's default.
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(64 << 20, 0, 64 << 20))
    answer = machine.shared_memory(str(tmp_path))
    assert answer.status == "warning"
    assert "0.06 of 0.06 GiB free" in answer.found
    assert "--shm-size=8g" in answer.fix
    assert machine.shared_memory(str(tmp_path / "none")).status == "warning"


@pytest.mark.parametrize(("free", "status"), [(GIB // 8, "error"), (2 * GIB, "warning"), (50 * GIB, "ok")])
def test_free_space_where_runs_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(100 * GIB, 0, free))
    monkeypatch.setattr(machine, "_TRIAL", 1 << 20)
    monkeypatch.setattr(machine, "_MIN_SPEED", 0)
    # Two roots below one folder that is there are one place.
    (answer,) = machine.disks([str(tmp_path / "runs/a"), str(tmp_path / "runs/b")])
    assert answer.status == status
    assert str(tmp_path) in answer.found
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "folder", ["/proc", pytest.param(None, marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write"))]
)
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, folder: str | None) -> None:
    if folder is None:
        folder = str(tmp_path)
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    (answer,) = machine.disks([folder])
    assert answer.status == "error"
    assert answer.found.startswith(folder)


def test_a_slow_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_write_speed", lambda folder: 3 * 2**20)
    (answer,) = machine.disks([str(tmp_path)])
    assert answer.status == "warning"
    assert "writes 3 MiB/s" in answer.found


def test_the_limit_of_a_control_group_counts_as_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n",
        "/sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "/sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
    }
    monkeypatch.setattr("convmixer.machine.text_of", lambda path: files.get(path.replace("//", "/"), ""))
    answer = machine.memory()
    assert (answer.status, answer.found) == ("warning", "1.0 of 4.0 GiB free")
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    answer = machine.memory()
    assert (answer.status, answer.found) == ("ok", "8.0 of 16.0 GiB free")


def test_cores_are_those_that_a_control_group_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("convmixer.machine.text_of", lambda path: "250000 100000\n" if path.endswith("cpu.max") else "")
    assert usable_cores() == 2
    monkeypatch.setattr("convmixer.machine.text_of", lambda path: "max 100000\n")
    assert usable_cores() == 8


def test_a_missing_or_broken_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: Python.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    answer = engine.compiler()
    assert answer.status == "warning"
    assert "Python.h" in answer.found
    assert "apt-get install g++" in answer.fix
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no no-such-compiler was found" in engine.compiler().found


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without a GPU")
def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver is there, but torch sees no GPU."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 470.82.01\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if not Path("/proc/driver/nvidia/version").exists():
        (answer,) = engine._gpus(torch)
        assert answer.status == "warning"
        assert "driver 470.82.01" in answer.found
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert [answer.status for answer in engine._gpus(torch)] in (["ok"], ["warning"])


class OneGpu:
    """A torch that has one GPU of 11 GB: what the doctor asks it, and nothing more."""

    distributed = SimpleNamespace(is_nccl_available=lambda: False)

    def __init__(self, memory: float) -> None:
        about = SimpleNamespace(name="RTX", major=7, minor=5, total_memory=int(memory * GIB))
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_device_properties=lambda index: about,
            mem_get_info=lambda index: (about.total_memory, about.total_memory),
        )

    def ones(self, *shape: int, device: str) -> torch.Tensor:
        assert device == "cuda:0"
        return torch.ones(*shape)


def test_the_batch_that_fits_a_gpu_is_reported() -> None:
    """RTX 2080 Ti, 10.75 GiB. By hand, in maps of 1.573 MB (2 bytes * 768 * 32 * 32):

    10.75 GiB - 1 GiB - 22 * 21.1 M = 10.005 GB, by 0.90 MB of images and (129 + 3) maps = 208.5 MB: 47,
    and with (32 + 1 + 4 + 3) maps = 63.8 MB: 156.
    """
    gpu, batch = engine._gpus(OneGpu(10.75))
    assert gpu.status == batch.status == "ok"
    assert batch.name == "batch 0"
    assert "768/32 trains at 224 px in 16 bits (--amp_level O1) with up to 47, --recompute 156;" in batch.found


@pytest.mark.parametrize(
    ("name", "memory", "eager"),
    # The table "Memory" of benchmarks/NOTES.md, which rounds.
    [
        ("convmixer_768_32", 79.1, 400),
        ("convmixer_1024_20", 79.1, 1250),
        ("convmixer_1536_20", 79.1, 210),
        ("convmixer_768_32", 139.8, 712),
    ],
)
def test_the_batch_is_that_of_the_notes(name: str, memory: float, eager: int) -> None:
    assert max_batch(int(memory * GIB), architecture(name), 224, recompute=False) == pytest.approx(eager, rel=0.005)
    assert max_batch(1 << 20, architecture(name), 224, recompute=False) == 0


def test_parameters_are_counted_right() -> None:
    arch = architecture("convmixer_16_3", kernel_size=5, patch_size=2, num_classes=7)
    assert parameters(arch) == sum(p.numel() for p in ConvMixer(arch).parameters())


def test_a_forward_pass_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr("convmixer.model.create_model", fail)
    answer = engine.forward_pass(torch)
    assert answer.status == "error"
    assert answer.found.endswith("CUDA error: no kernel image is available")
