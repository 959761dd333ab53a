"""Fuzzing of everything that reads: `python tests/fuzz/fuzz.py [--seconds 600] [--seed N] [--target NAME ...]`.

Each target runs in a process of its own under limits, for its seconds_each of the seconds, over inputs that hypothesis
draws. An input that breaks a rule of `guard` is made smaller and shown, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGETS = ("images", "cifar10", "weights", "checkpoints", "recipes", "options", "augmentation")
_ROUND = 200  # inputs between two looks at the clock
_SHRINKING = 15.0  # seconds spent on making a faulty input smaller
_START = 120  # seconds that a process may take beside its share, on a busy machine
_SHOWN = 3000  # letters of an input


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        return run_alone(given.target[0], given.seconds, given.seed)
    seconds_each = given.seconds * given.jobs / len(given.target)
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda name: run_apart(name, seconds_each, given.seed), given.target))
    for result in results:
        print(
            f"{result['target']:<14}{result['inputs']:>9,} inputs{result['accepted']:>9,} accepted"
            f"{result['growth'] >> 20:>6} MiB growth  {'failure' if result['failure'] else 'ok'}"
        )
    total, failures = sum(result["inputs"] for result in results), [r for r in results if r["failure"]]
    print(f"{total:,} inputs tried in {given.seconds:g} s (seed {given.seed}), {len(failures)} failures")
    for result in failures:
        print(f"\n{result['target']}:\n{result['failure']}", file=sys.stderr)
    return 1 if failures else 0


def run_apart(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """The target in a process of its own, which may crash or hang without taking this one along."""
    command = [sys.executable, __file__, "--alone", "--target", name, f"--seconds={seconds}", f"--seed={seed}"]
    # One arena and one thread: each more would take address space, which is limited.
    limits = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
    result = {"target": name, "inputs": 0, "accepted": 0, "growth": 0, "failure": None}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                timeout=seconds + _START,
                cwd=folder,
                env={**os.environ, **limits, "PYTHONPATH": paths, "PYTHONFAULTHANDLER": "1"},
            )
        except subprocess.TimeoutExpired:
            return {**result, "failure": f"hung in code that no signal interrupts, on {_last(folder)}"}
        executed, last = (Path(folder) / "FUZZED").exists(), _last(folder)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return {**result, "failure": f"the process ended with {done.returncode}:\n{done.stderr[-3000:]}\non {last}"}
    result |= json.loads(lines[-1])
    if executed:
        result["failure"] = "something was executed: it made the folder FUZZED"
    return result


def _last(folder: str) -> str:
    path = Path(folder) / "last"
    return path.read_text(errors="backslashreplace")[:_SHOWN] if path.is_file() else "no input"


class _Enough(BaseException):
    """Ends a run of hypothesis from within."""


def run_alone(name: str, seconds: float, seed: int) -> int:
    """The target in this process, in the current folder; its counts go to stdout as JSON."""
    import hypothesis
    from tests.fuzz.guard import Guard, limit_growth, peak
    from tests.fuzz.targets import TARGETS

    target, guard = TARGETS[name](Path.cwd()), Guard()
    guard.check(target.read, target.whole)
    if guard.accepted != 1:
        raise SystemExit(f"{name}: the whole input is refused")
    rules = hypothesis.settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )
    found: list[tuple[str, str]] = []  # faulty inputs and their tracebacks
    before, end = 0, time.monotonic() + seconds

    def one(given: Any) -> None:
        nonlocal end
        if found and time.monotonic() > end:
            raise _Enough
        shown = repr(given)
        Path("last").write_text(shown, errors="backslashreplace")
        try:
            guard.check(target.read, given)
        except Exception:
            if not found:
                end = time.monotonic() + _SHRINKING
            found.append((shown, traceback.format_exc()))
            raise

    while not found and time.monotonic() < end:
        # What hypothesis itself has gathered is not counted against the program.
        limit_growth()
        with contextlib.suppress(_Enough, Exception):
            hypothesis.seed(seed)(rules(hypothesis.given(target.inputs)(one)))()
        seed += 1
        # The first round has loaded what hypothesis needs, some 200 MiB of tables of letters.
        before = before or peak()
    failure = None
    if found:
        shown, trace = min(found, key=lambda each: len(each[0]))
        failure = f"{trace[-3000:]}on {shown[:_SHOWN]}"
    print(
        json.dumps({"inputs": guard.inputs, "accepted": guard.accepted, "growth": peak() - before, "failure": failure})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
