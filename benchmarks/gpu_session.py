"""Everything that wants a GPU, in slots of ten minutes: it checks, tests and times, and leaves one archive.

    python benchmarks/gpu_session.py                           the first slot: what is there, right, and fast
    python benchmarks/gpu_session.py --only inference tuned    the second; the others are in docs/speed.md
    python benchmarks/gpu_session.py --dry_run                 every step in small form, on a CPU

Each step has a limit of its own and what is left of --minutes; then it is killed with all that it started, and the next
one begins. `gpu_session.zip` in --output holds logs and results, and is renewed while a step runs and when it ends;
`gpu_session.json` beside it says how each step ended, as the last lines printed do. A step whose packages or data are
missing is left out and says so.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

from session_archive import renew
from session_processes import Ended, run
from session_steps import FIRST, REPOSITORY, STEPS, Session, Step

RENEWED = 20.0  # seconds between two archives while a step runs
MIN_SECONDS = 5.0  # seconds that must be left for a step to begin


@dataclass
class StepResult:
    """How a step ended: its processes, or why it was left out."""

    name: str
    seconds: float = 0.0
    left_out: str = ""
    processes: list[Ended] = field(default_factory=list)

    @property
    def state(self) -> str:
        codes = {ended.code for ended in self.processes}
        if self.left_out:
            return "left out"
        return "out of time" if None in codes else "done" if codes == {0} else "failed"

    def describe(self) -> str:
        text = f"{self.name:11} {self.state:11} {self.seconds:5.0f} s  "
        if self.left_out:
            return text + self.left_out
        shown = [ended.describe() for ended in self.processes if ended.code != 0]
        if not shown:
            # What a step found stands in its last lines; of several processes, in the last one of each.
            several = len(self.processes) > 1
            shown = [line for ended in self.processes for line in (ended.last[-1:] if several else ended.last)]
        return text + f"\n{'':27}".join(shown[:16])


def say(text: str) -> None:
    print(text, flush=True)


def do(step: Step, session: Session, seconds: float, lines: int, archive: Path) -> StepResult:
    """Run a step for at most so many seconds, and say how it ended."""
    result, begin = StepResult(step.name), time.monotonic()
    if missing := step.missing():
        result.left_out = f"not installed: {', '.join(missing)}"
    elif seconds < MIN_SECONDS:
        result.left_out = "no time left"
    else:
        say(f"=== {step.name}, at most {seconds:.0f} s")
        try:
            commands = step.commands(session)
        except Exception as error:  # a step that cannot even be begun must not take the others with it
            commands = f"{type(error).__name__}: {error}"
        if isinstance(commands, str):
            result.left_out = commands
        else:
            left = seconds - (time.monotonic() - begin)
            renewed = [time.monotonic()]

            def meanwhile() -> None:
                if time.monotonic() - renewed[0] > RENEWED:
                    renew(session.results, archive)
                    renewed[0] = time.monotonic()

            logs = session.results
            result.processes = run(commands, logs, left, at_once=step.at_once, folder=REPOSITORY, meanwhile=meanwhile)
            for ended in result.processes:
                log = logs / f"{ended.name}.log"
                text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
                say("\n".join([f"--- {ended.describe()}", *text.splitlines()[-lines:]]))
    result.seconds = round(time.monotonic() - begin, 1)
    return result


def all_of(
    steps: Sequence[Step], folder: Path, results: Path, archive: Path, options: argparse.Namespace
) -> Iterator[StepResult]:
    """The steps, one after the other."""
    end = time.monotonic() + 60 * options.minutes
    cifar10 = None if options.cifar10 is None else options.cifar10.resolve()
    for step in steps:
        scratch = folder / step.name
        scratch.mkdir()
        session = Session(results, scratch, cifar10, options.dry_run)
        yield do(step, session, min(60 * step.minutes, end - time.monotonic()), options.lines, archive)


def parse(argv: Sequence[str] | None, steps: Sequence[Step]) -> argparse.Namespace:
    names = [step.name for step in steps]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=names, default=None, metavar="STEP", help=f"of: {', '.join(names)}"
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="for all steps together")
    parser.add_argument("--cifar10", type=Path, default=None, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--lines", type=int, default=8, help="lines of each log that are printed")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the archive and the summary")
    parser.add_argument("--dry_run", action="store_true", help="every step in small form, on a CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    options = parse(argv, steps)
    device = "cpu, in small form"
    if not options.dry_run:
        import torch

        if not torch.cuda.is_available():
            print("a CUDA GPU is needed; on a CPU: --dry_run, model_speed.py, training_curves.py", file=sys.stderr)
            return 2
        device = torch.cuda.get_device_name()
    names = options.only or [step.name for step in steps if options.dry_run or step.name in FIRST]
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    archive = output / "gpu_session.zip"
    summary: dict[str, Any] = {"device": device, "torch": version("torch"), "minutes": options.minutes, "steps": {}}
    ended_steps: list[StepResult] = []
    # So that what a stopped session has begun is ended with it, and what it found is kept.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # What a shell starts in the background ignores interrupts, and so would its children, which are ended by one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results")
        results.mkdir()
        try:
            for result in all_of(
                [step for step in steps if step.name in names], Path(folder), results, archive, options
            ):
                ended_steps.append(result)
                summary["steps"][result.name] = {"state": result.state, **asdict(result)}
                text = json.dumps(summary, indent=1) + "\n"
                for place in (results, output):
                    (place / "gpu_session.json").write_text(text, encoding="utf-8")
                for name in renew(results, archive):
                    say(f"not in the archive, for its size: {name}")
        finally:
            renew(results, archive)
            signal.signal(signal.SIGTERM, before)
    say(f"=== {archive.name}, {archive.stat().st_size / 2**20:.1f} MiB" if ended_steps else "=== nothing was asked for")
    for result in ended_steps:
        say(result.describe())
    return 0 if all(result.state in ("done", "left out") for result in ended_steps) else 1


if __name__ == "__main__":
    sys.exit(main())
