"""Python, packages, processor, memory and disk; without torch, so that it answers where torch cannot be imported."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from convmixer import __version__, machine
from convmixer.doctor.check_result import CheckResult
from convmixer.machine import processor_name, text_of, usable_cores
from convmixer.packages import CORE, EXTRAS, install_command

GIB = 1 << 30
_MIN_PYTHON = (3, 11)
_MIN_MEMORY = 2 * GIB
# Eight loader processes with two batches of 128 crops of 224 x 224 each want about 0.3 GiB.
_MIN_SHARED_MEMORY = GIB // 2
# A checkpoint of convmixer_768_32 with averaged weights has 0.34 GiB, and ten are kept.
_WANTED_DISK, _MIN_DISK = 4 * GIB, GIB // 4
_MIN_SPEED = 50 * 2**20  # bytes per second
_TRIAL = 64 * 2**20  # bytes written to measure the disk
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")

# Packages that are used where they are there; no extra brings them.
_OTHERS = ("onnxruntime-gpu", "torch_npu")


def python() -> CheckResult:
    """Its version and build."""
    found = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    if sys.version_info[:2] < _MIN_PYTHON:
        return CheckResult("python", "error", found, "install Python 3.11 or later and convmixer into it")
    return CheckResult("python", "ok", found)


def packages() -> CheckResult:
    """The packages without which nothing runs; beside torch, of which `engine` tells, also those of its extra."""
    engine = () if _version("torch") is None else EXTRAS["torch"].packages
    found = {name: _version(name) for name in (*CORE, *engine)}
    text = ", ".join([f"convmixer {__version__}", *(f"{name} {number}" for name, number in found.items())])
    missing = {install_command(name): None for name, number in found.items() if number is None}
    return CheckResult("packages", "error" if missing else "ok", text, "; ".join(missing))


def extras() -> CheckResult:
    """The packages that single commands need: those that are there, and the extras that lack one."""
    optional = {name: extra for name, extra in EXTRAS.items() if name != "torch"}
    names = dict.fromkeys((*(name for extra in optional.values() for name in extra.packages), *_OTHERS))
    found = {name: _version(name) for name in names}
    installed = [f"{name} {number}" for name, number in found.items() if number is not None]
    lacking = [
        f"convmixer[{name}] ({extra.purpose})"
        for name, extra in optional.items()
        if any(found[package] is None for package in extra.packages)
    ]
    parts = [", ".join(installed) or "none"] + ([f"not installed: {', '.join(lacking)}"] if lacking else [])
    return CheckResult("optional packages", "ok", "; ".join(parts))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> CheckResult:
    """Model, cores that this process may use, and the instructions that speed up training."""
    text = text_of("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)", text, re.MULTILINE)
    known = [flag for flag in _CPU_FLAGS if flags and flag in flags[1].split()]
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    of = "" if cores == all_cores else f" of {all_cores}"
    found = f"{processor_name()}, {cores}{of} cores, {' '.join(known) or 'no instructions for speed known'}"
    if cores < 2:
        return CheckResult(
            "processor", "warning", found, "with a single core images are decoded between steps: give it more"
        )
    return CheckResult("processor", "ok", found)


def memory() -> CheckResult:
    """Free memory of the machine, or what its control group leaves."""
    known = machine.memory()
    if known is None:
        return CheckResult("memory", "ok", "unknown on this system")
    total, free = known
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < _MIN_MEMORY:
        return CheckResult(
            "memory", "warning", found, "end other programs, or take a smaller batch_size and fewer workers (-j)"
        )
    return CheckResult("memory", "ok", found)


def shared_memory(folder: str = "/dev/shm") -> CheckResult:
    """Room of the folder through which loader processes hand over batches."""
    if not Path(folder).is_dir():
        return CheckResult(
            "shared memory", "warning", f"there is no {folder}", "mount a tmpfs there, or train with -j 0"
        )
    usage = shutil.disk_usage(folder)
    found = f"{folder}: {usage.free / GIB:.2f} of {usage.total / GIB:.2f} GiB free"
    if usage.free < _MIN_SHARED_MEMORY:
        fix = f"start the container with --shm-size=8g, or: mount -o remount,size=8g {folder}, or train with -j 0"
        return CheckResult("shared memory", "warning", found, fix)
    return CheckResult("shared memory", "ok", found)


def disks(folders: Sequence[str]) -> Iterator[CheckResult]:
    """Free space and speed where the folders are or would be made, each parent once."""
    parents: dict[Path, list[str]] = {}
    for folder in folders:
        path = Path(folder).absolute()
        parent = next(parent for parent in (path, *path.parents) if parent.exists())
        parents.setdefault(parent, []).append(folder)
    for parent, named in parents.items():
        yield _disk(parent, ", ".join(named))


def _disk(parent: Path, named: str) -> CheckResult:
    name, free = "disk", shutil.disk_usage(parent).free
    room = f"{parent}: {free / GIB:.1f} GiB free"
    if free < _MIN_DISK:
        return CheckResult(name, "error", room, f"make room there, or put {named} elsewhere")
    try:
        speed = _write_speed(parent)
    except OSError as error:
        fix = f"make it a folder that you may write to, or put {named} elsewhere"
        return CheckResult(name, "error", f"{parent}: cannot be written: {error.strerror}", fix)
    found = f"{room}, writes {speed / 2**20:.0f} MiB/s"
    if free < _WANTED_DISK:
        return CheckResult(name, "warning", found, "make room, or keep fewer checkpoints (ckpt_keep_num)")
    if speed < _MIN_SPEED:
        return CheckResult(name, "warning", found, f"put {named} on a faster disk, or save less often")
    return CheckResult(name, "ok", found)


def _write_speed(folder: Path) -> float:
    """Bytes per second of a file that is written, flushed to the disk and removed."""
    # Not zeros: some file systems store these for nothing.
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder, prefix=".convmixer-doctor-") as file:
        start = time.perf_counter()
        for _ in range(_TRIAL // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _TRIAL / (time.perf_counter() - start)
