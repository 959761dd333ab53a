"""Kill a training run at random moments and resume it each time; the result must equal the run that nobody killed.

    python scripts/kill_loop.py --kills 50
    python scripts/kill_loop.py --kills 50 --caches none ram device -- --set imagenet --data_url DIR

Each life of the run ends by SIGKILL, in the middle of a step, of an evaluation or of writing a checkpoint, and the
next one goes on by `--resume auto`. At the end weights, optimizer state, averaged weights and metrics are compared bit
by bit with an uninterrupted run. Exit code 0 when all are equal. Words after -- are options of all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent

OPTIONS = [
    "--config=digits",
    "--arch=convmixer_16_2",
    "--train_num_samples=256",
    "--val_num_samples=64",
    "--batch_size=8",
    "--accumulate=2",
    "--eval_every=1",
    "--mixup=0.2",
    "--re_prob=0.25",
    "--re_mode=pixel",
    "--with_ema",
    "--num_parallel_workers=1",
    "--ckpt_save_every_step=3",
    "--ckpt_keep_num=3",
    "--summary_loss_collect_freq=1",
]

CLOCKS = ("images_per_second", "data_wait")


def command(folder: Path, epochs: int, *words: str) -> list[str]:
    roots = [f"--{kind}_root_dir={folder / kind}" for kind in ("summary", "ckpt", "best_ckpt")]
    return [sys.executable, str(ROOT / "train.py"), *OPTIONS, f"--epochs={epochs}", *roots, *words]


def start(words: list[str]) -> subprocess.Popen[bytes]:
    # One thread: the sums of two differ by nothing, but their waiting for each other slows a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)


def lines_logged(folder: Path) -> int:
    logs = sorted((folder / "summary").glob("*/metrics.jsonl"))
    return len(logs[-1].read_bytes().splitlines()) if logs else 0


def kill_once(folder: Path, epochs: int, words: list[str], caches: list[str], draw: random.Random) -> str | None:
    """Start or resume, wait for some steps and some milliseconds, kill. Returns what was hit, None if it finished."""
    before, wanted = lines_logged(folder), draw.randint(0, 6)
    cache = draw.choice(caches)
    process = start(command(folder, epochs, *words, f"--cache={cache}", "--resume=auto"))
    while process.poll() is None and lines_logged(folder) < before + wanted:
        time.sleep(0.002)
    time.sleep(draw.uniform(0.0, 0.15) if wanted else draw.uniform(0.0, 4.0))
    if process.poll() is not None:
        if process.returncode != 0:
            raise SystemExit(f"the resumed run ended with exit code {process.returncode}")
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    partial = list((folder / "ckpt").glob("*/.step_*"))
    when = "while a checkpoint was written" if partial else f"after {lines_logged(folder)} lines of metrics"
    return f"{when}, cache {cache}"


def final_state(folder: Path) -> dict[str, object]:
    """All that a finished run leaves and no clock has touched."""
    checkpoint = max((folder / "ckpt").glob("*/step_*"), key=lambda path: path.name)
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    state.pop("log_bytes")
    log = (folder / "summary" / checkpoint.parent.name / "metrics.jsonl").read_text().splitlines()
    entries = [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in log]
    best = (folder / "best_ckpt" / checkpoint.parent.name / "best.safetensors").read_bytes()
    weights = {name: load_file(checkpoint / f"{name}.safetensors") for name in ("model", "ema")}
    return {"step": checkpoint.name, "state": state, "metrics": entries, "best": best, **weights}


def same(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=0, help="0: enough for the kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--caches", nargs="+", default=["auto"], help="values of --cache, of which each life draws one")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    epochs = arguments.epochs or arguments.kills // 2 + 2
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        words = arguments.words
        if start(command(whole, epochs, *words, "--cache=none")).wait() != 0:
            raise SystemExit("the uninterrupted run failed")
        kills = 0
        while kills < arguments.kills:
            hit = kill_once(killed, epochs, words, arguments.caches, draw)
            if hit is None:
                break
            kills += 1
            print(f"kill {kills:3d} of {arguments.kills}: {hit}", flush=True)
        if start(command(killed, epochs, *words, "--resume=auto")).wait() != 0:
            raise SystemExit("the last resume failed")
        left, right = final_state(whole), final_state(killed)
        different = [name for name in left if not same(left[name], right[name])]
    if different:
        print(f"after {kills} kills these differ from the uninterrupted run: {', '.join(different)}")
        return 1
    print(f"{kills} of {arguments.kills} kills survived: {left['step']}, weights, state and metrics equal to the bit")
    return 0 if kills == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
