"""Timing of the contenders of a setting."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from model_speed_contenders import Setting, Trial
from model_speed_engines import CONTENDERS

from convmixer.backends.autotune.benchmark import reason
from convmixer.backends.autotune.trial import release, wait


def time_setting(setting: Setting, names: Sequence[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each contender that applies: its error, images per second and ratio to timm's eager module, or a note.

    Those that hold memory from their first pass on are timed after the others, each alone.
    """
    trial = Trial(setting)
    check = Trial(setting.checked) if setting.checked != setting else trial
    limit = setting.tolerance
    if setting.precision == "bf16" or setting.device.type == "cuda":
        limit = max(limit, 3 * check.error(CONTENDERS["timm eager NCHW"].build(check)()))
    applying = [name for name in names if CONTENDERS[name].applies(setting)]
    together = [name for name in applying if not CONTENDERS[name].holds_memory]
    rows: dict[str, dict[str, Any]] = {name: {"name": name} for name in applying}
    base: tuple[str, list[float]] | None = None
    for group in (together, *([name] for name in applying if name not in together)):
        steps = {name: step for name in group if (step := _checked(name, trial, check, limit, rows[name])) is not None}
        try:
            taken = _interleaved(setting, steps, rounds, seconds)
        except Exception as exception:  # out of memory, most likely: the next group may fit
            for name in steps:
                rows[name]["note"] = reason(exception)
            taken = {}
        base = base or next(iter(taken.items()), None)
        for name, times in taken.items():
            rows[name] |= _figures(setting, times, *base)  # type: ignore[misc]
            print(setting.title, rows[name], file=sys.stderr, flush=True)
        steps.clear()
        release(setting.device)
    return list(rows.values())


def _checked(name: str, trial: Trial, check: Trial, limit: float, row: dict[str, Any]) -> Callable[[], object] | None:
    """The step of a contender whose answer is right; of another one None, and a note in its row."""
    start = time.perf_counter()
    try:
        error = check.error(CONTENDERS[name].build(check)()) if check is not trial else None
        release(trial.setting.device)
        step = CONTENDERS[name].build(trial)
        answer = step()
        error = trial.error(answer) if error is None else error
    except Exception as exception:  # one that fails must not take the others with it
        row["note"] = reason(exception)
    else:
        row |= {"error": error, "build_seconds": round(time.perf_counter() - start, 1)}
        if error <= limit:
            return step
        row["note"] = f"not timed: its answer is {error:.1e} off, {limit:.1e} is allowed"
    print(trial.setting.title, row, file=sys.stderr, flush=True)
    return None


def _interleaved(
    setting: Setting, steps: dict[str, Callable[[], object]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of a pass of each, by rounds in which every one has its turn."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    repeats = {name: _repeats(setting, step) for name, step in steps.items()}
    end = time.perf_counter() + seconds
    for _ in range(rounds):
        for name, step in steps.items():
            if setting.device.type == "cuda":
                # Where the memory does not hold what all of them cache, the allocator gives one's back for another.
                step()
                wait(setting.device)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            wait(setting.device)
            taken[name].append((time.perf_counter() - start) / repeats[name])
        if time.perf_counter() > end:
            break
    return taken


def _figures(setting: Setting, times: list[float], base: str, base_times: list[float]) -> dict[str, Any]:
    # The ratio within each round, whose contenders ran under the same load.
    pairs = zip(base_times, times, strict=False)
    return {
        "images_per_second": round(setting.batch / statistics.median(times), 2),
        "best_images_per_second": round(setting.batch / min(times), 2),
        "rounds": len(times),
        "ratio": round(statistics.median([one / other for one, other in pairs]), 2),
        "ratio_to": base,
    }


def _repeats(setting: Setting, step: Callable[[], object]) -> int:
    """Calls a round, so that a round of a GPU is long enough to be timed."""
    if setting.device.type == "cpu":
        return 1
    step()
    wait(setting.device)
    start = time.perf_counter()
    step()
    wait(setting.device)
    return max(1, min(20, round(0.2 / (time.perf_counter() - start))))
