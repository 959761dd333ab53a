"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path, PurePosixPath

# Of the second and the first version of control groups: its line in /proc/self/cgroup, its folder, its files with the
# limit and the use, and the key of memory.stat that says how much of the use are files.
_MEMORY_GROUPS = (
    (r"^0::(/.*)$", "", "memory.max", "memory.current", "inactive_file"),
    (
        r"^\d+:(?:\S+,)?memory(?:,\S+)?:(/.*)$",
        "/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
# More than the fastest GPU needs, each with its batches in shared memory.
_MAX_WORKERS = 16


def usable_cores() -> int:
    """Cores that this process may run on, and that its control group lets it use up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = re.fullmatch(r"(\d+) (\d+)", text_of("/sys/fs/cgroup/cpu.max").strip())
    return max(1, min(cores, int(quota[1]) // int(quota[2]))) if quota else cores


def processor_name() -> str:
    """The processor's model, as the system calls it."""
    model = re.search(r"^model name\s*:\s*(.+)", text_of("/proc/cpuinfo"), re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def workers(wanted: int | None) -> int:
    """How many processes or threads read images: as many as are wanted, else one per core."""
    return min(cores_of_this_process(), _MAX_WORKERS) if wanted is None else wanted


def cores_of_this_process() -> int:
    """Its share where several processes of a run are on this machine, at least one."""
    return max(usable_cores() // processes_here(), 1)


def processes_here() -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def memory(proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> tuple[int, int] | None:
    """Bytes in all and free: of the machine, or what this process's control group leaves; None where nothing says it.

    Each group around that one may set a limit too, as Slurm does for a job. What a control group holds of files that
    have been read counts as free: the system gives it up for anything else.
    """
    kilobytes = {key: int(value) for key, value in re.findall(r"(\w+):\s+(\d+) kB", text_of(f"{proc}/meminfo"))}
    if "MemAvailable" not in kilobytes:
        return None
    total, free = kilobytes["MemTotal"] << 10, kilobytes["MemAvailable"] << 10
    for line, root, limit, used, files in _MEMORY_GROUPS:
        own = re.search(line, text_of(f"{proc}/self/cgroup"), re.MULTILINE)
        path = PurePosixPath(own[1] if own else "/")
        for group in (path, *path.parents):
            folder = f"{cgroup}{root}{group}"
            most, now = (text_of(f"{folder}/{name}").strip() for name in (limit, used))
            if most.isdigit() and now.isdigit() and int(most) < kilobytes["MemTotal"] << 10:
                read = re.search(rf"^{files} (\d+)$", text_of(f"{folder}/memory.stat"), re.MULTILINE)
                total = min(total, int(most))
                free = max(0, min(free, int(most) - int(now) + (int(read[1]) if read else 0)))
    return total, free


def text_of(path: str) -> str:
    """What a file of the system says; nothing where it is not there."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
