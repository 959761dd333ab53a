"""What was measured, kept on disk: one file per workload, device and set of versions."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from convmixer import __version__
from convmixer.backends.autotune.benchmark import Timing
from convmixer.backends.compiled import has_compiler
from convmixer.backends.workload import Workload
from convmixer.runs.durable import write_file
from convmixer.user_cache import user_cache


def cache_folder() -> Path:
    """`convmixer/execution` in the user's cache folder."""
    return user_cache("execution")


def key_of(workload: Workload) -> dict[str, Any]:
    """All that a timing depends on, as JSON has it."""
    if workload.device.type == "cuda":
        device = torch.cuda.get_device_name(workload.device)
    else:
        # Not at the top: it brings the options' checks, without which the benchmarks run too.
        from convmixer.runs.folders import hardware

        device = f"{hardware()['processor']}, {torch.get_num_threads()} threads"
    return {
        "arch": asdict(workload.arch),
        "image_size": workload.image_size,
        "batch_size": workload.batch_size,
        "dtype": str(workload.dtype),
        "training": workload.training,
        "recompute": workload.recompute,
        "device": device,
        # Without one torch.compile fails, and should be tried again where it has been installed since.
        "compiler": has_compiler(),
        "versions": {"convmixer": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def load(workload: Workload) -> dict[str, Timing]:
    """Timings of the backends that were measured on this workload, by name; empty where none can be read."""
    try:
        return {name: _timing(values) for name, values in _read(workload)["timings"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def load_plan(workload: Workload) -> str | None:
    """The plan that was found best for this workload, None where none was looked for."""
    plan = _read(workload).get("plan")
    return plan if isinstance(plan, str) else None


def save(workload: Workload, timings: dict[str, Timing], plan: str | None = None) -> None:
    """Keep timings and a plan; where the folder cannot be written they are measured again next time."""
    content = {
        "workload": key_of(workload),
        "plan": plan,
        "timings": {name: _values(timing) for name, timing in timings.items()},
    }
    path = _path(workload)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(content, indent=1).encode())


def _read(workload: Workload) -> dict[str, Any]:
    try:
        content = json.loads(_path(workload).read_text(encoding="utf-8"))
        return content if content["workload"] == key_of(workload) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _path(workload: Workload) -> Path:
    text = json.dumps(key_of(workload), sort_keys=True)
    return cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _values(timing: Timing) -> dict[str, Any]:
    # JSON has no infinity.
    return {name: value for name, value in asdict(timing).items() if value is not None and value != math.inf}


def _timing(values: dict[str, Any]) -> Timing:
    timing = Timing(**values)
    if not all(isinstance(x, float) and x >= 0 for x in (timing.image_seconds, timing.build_seconds)):
        raise ValueError("not a timing")
    return timing
