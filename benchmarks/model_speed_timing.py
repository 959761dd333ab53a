"""Timing of the contenders of a setting, and what the device could do at best."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from model_speed_contenders import Setting, Trial
from model_speed_engines import CONTENDERS

from convmixer.execution.measure import reason


def time_setting(setting: Setting, names: Sequence[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each contender that applies: its error, images a second and ratio to timm's eager module, or a note."""
    trial = Trial(setting)
    check = Trial(setting.checked) if setting.checked != setting else trial
    rows: list[dict[str, Any]] = []
    steps: dict[str, Callable[[], object]] = {}
    limit = setting.tolerance
    if setting.precision == "bf16" or setting.device.type == "cuda":
        limit = max(limit, 3 * check.error(CONTENDERS["timm eager NCHW"].build(check)()))
    for name in names:
        if not CONTENDERS[name].applies(setting):
            continue
        row: dict[str, Any] = {"name": name}
        start = time.perf_counter()
        try:
            error = check.error(CONTENDERS[name].build(check)()) if check is not trial else None
            step = CONTENDERS[name].build(trial)
            answer = step()
            error = trial.error(answer) if error is None else error
        except Exception as exception:  # one that fails must not take the others with it
            row["note"] = reason(exception)
        else:
            row |= {"error": error, "build_seconds": round(time.perf_counter() - start, 1)}
            if error <= limit:
                steps[name] = step
            else:
                row["note"] = f"not timed: its answer is {error:.1e} off, {limit:.1e} is allowed"
        rows.append(row)
        print(setting.title, row, file=sys.stderr, flush=True)
    _interleaved(setting, steps, rows, rounds, seconds)
    return rows


def _interleaved(
    setting: Setting, steps: dict[str, Callable[[], object]], rows: list[dict[str, Any]], rounds: int, seconds: float
) -> None:
    taken: dict[str, list[float]] = {name: [] for name in steps}
    repeats = {name: _repeats(setting, step) for name, step in steps.items()}
    end = time.perf_counter() + seconds
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            _wait(setting.device)
            taken[name].append((time.perf_counter() - start) / repeats[name])
        if time.perf_counter() > end:
            break
    base = next(iter(taken), None)
    for row in rows:
        times = taken.get(row["name"])
        if not times or base is None:
            continue
        row["images_per_second"] = round(setting.batch / statistics.median(times), 2)
        row["best_images_per_second"] = round(setting.batch / min(times), 2)
        row["rounds"] = len(times)
        # The ratio within each round, whose contenders ran under the same load.
        row["ratio"] = round(statistics.median([b / t for b, t in zip(taken[base], times, strict=True)]), 2)
        row["ratio_to"] = base


def _repeats(setting: Setting, step: Callable[[], object]) -> int:
    """Calls a round, so that a round of a GPU is long enough to be timed."""
    if setting.device.type == "cpu":
        return 1
    step()
    _wait(setting.device)
    start = time.perf_counter()
    step()
    _wait(setting.device)
    return max(1, min(20, round(0.2 / (time.perf_counter() - start))))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def roofline(device: torch.device) -> dict[str, float]:
    """Best of several: GB/s read plus written by a copy, and TFLOP/s of a matrix product in fp32 and bf16."""
    on_gpu = device.type == "cuda"
    elements = (1 << 30 if on_gpu else 1 << 26) // 4
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)
    found = {"copy_gb_per_s": round(2 * source.nbytes / _best(lambda: target.copy_(source), device) / 1e9, 1)}
    side = 8192 if on_gpu else 2048
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.rand(side, side, device=device).to(dtype)
        b = torch.rand(side, side, device=device).to(dtype)
        seconds = _best(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
        found[f"matmul_{name}_tflop_per_s"] = round(2 * side**3 / seconds / 1e12, 3)
    return found


def _best(step: Callable[[], object], device: torch.device, times: int = 10) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        step()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best
