from __future__ import annotations

from pathlib import Path

import pytest

from convmixer import machine

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """16 GiB, of which 10 are free."""
    (tmp_path / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 99 kB\nMemAvailable:   10485760 kB\n")
    return tmp_path


def memory(system: Path) -> tuple[int, int] | None:
    return machine.memory(str(system), str(system))


def test_memory_of_a_machine(system: Path) -> None:
    assert memory(system) == (16 * GIB, 10 * GIB)
    (system / "memory.max").write_text("max\n")
    (system / "memory.current").write_text("123\n")
    assert memory(system) == (16 * GIB, 10 * GIB)
    (system / "meminfo").write_text("")
    assert memory(system) is None


@pytest.mark.parametrize(
    ("limit", "used", "stat", "files"),
    [
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ],
)
def test_memory_of_a_control_group(system: Path, limit: str, used: str, stat: str, files: str) -> None:
    (system / "memory").mkdir()
    (system / limit).write_text(f"{8 * GIB}\n")
    (system / used).write_text(f"{6 * GIB}\n")
    assert memory(system) == (8 * GIB, 2 * GIB)
    (system / stat).write_text(f"anon 5\n{files} {3 * GIB}\nactive_file {GIB}\n")
    assert memory(system) == (8 * GIB, 5 * GIB)
    (system / used).write_text(f"{9 * GIB}\n")
    (system / stat).write_text("")
    assert memory(system) == (8 * GIB, 0)


@pytest.mark.parametrize(
    ("lines", "own", "limit", "used"),
    [
        ("0::/slurm/job_7/step_0\n", "slurm/job_7/step_0", "memory.max", "memory.current"),
        (
            "9:cpu,cpuacct:/\n4:memory:/slurm/job_7/step_0\n0::/\n",
            "memory/slurm/job_7/step_0",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
    ],
)
def test_each_group_around_a_process_may_set_a_limit(lines: str, own: str, limit: str, used: str, system: Path) -> None:
    (system / "self").mkdir()
    (system / "self/cgroup").write_text(lines)
    inner, job = system / own, (system / own).parent
    inner.mkdir(parents=True)
    (job / limit).write_text(f"{6 * GIB}\n")
    (job / used).write_text(f"{GIB}\n")
    assert memory(system) == (6 * GIB, 5 * GIB)
    (inner / limit).write_text(f"{8 * GIB}\n")
    (inner / used).write_text(f"{4 * GIB}\n")
    assert memory(system) == (6 * GIB, 4 * GIB)
    # As in a container, which sees its own group where all groups lie, by another name than its own.
    (system / "self/cgroup").write_text(lines.replace("/slurm", "/docker/slurm"))
    assert memory(system) == (16 * GIB, 10 * GIB)


def test_readers_follow_the_cores_and_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 24)
    assert machine.workers(3) == 3
    assert machine.workers(0) == 0
    assert machine.workers(None) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine.workers(None) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "48")
    assert machine.workers(None) == 1
