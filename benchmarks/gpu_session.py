"""Everything that wants a GPU, one step after the other: builds, checks, times and prints, and leaves result files.

    python benchmarks/gpu_session.py --cifar10 FOLDER                       all steps
    python benchmarks/gpu_session.py --steps tests training --minutes 9     those of one visit to a lent machine

FOLDER holds cifar-10-batches-py. Each step is a process of its own with the time that is left; one that fails or runs
out of time leaves what it has, and the next one starts. The log of a step stands beside the results, and
`gpu_session.json` says how each ended.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
STEPS = ("tests", "training", "inference", "kernels", "cifar10", "curves", "batch")


def command(step: str, options: argparse.Namespace, folder: Path) -> list[str] | str:
    """What the step runs, or why it cannot; `folder` takes what is not a result."""
    output = str(options.output)
    speed = [str(HERE / "model_speed.py"), "--output", output]
    cifar10 = None if options.cifar10 is None else str(options.cifar10)
    if step == "tests":
        if find_spec("pytest") is None:
            return "pytest is not installed"
        return ["-m", "pytest", "tests/kernels", "tests/execution/test_graphs.py", "-q", "-m", "not mindspore"]
    if step in ("training", "inference"):
        return [*speed, "--parts", step, "--name", f"gpu_{step}"]
    if step == "kernels":
        return [str(HERE / "gpu_kernels.py"), "--tune", "--output", str(options.output / "gpu_kernels.json")]
    if step == "batch":
        return [str(HERE / "largest_batch.py"), "--output", str(options.output / "largest_batch.json")]
    if cifar10 is None:
        return "it needs --cifar10 FOLDER"
    if step == "curves":
        arguments = ["cifar10", "--data_url", cifar10, "--amp_level", "O1"]
        return [str(HERE / "training_curves.py"), *arguments, "--output", output, "--name", "curves_cifar10_gpu"]
    runs = [word for kind in ("ckpt", "best_ckpt", "summary") for word in (f"--{kind}_root_dir", str(folder / kind))]
    # The authors' settings; the score is that of the last epoch, and one evaluation is enough. So short a job is not
    # worth the timing of the ways: "curves" tells what each of them takes.
    recipe = ["--config", "cifar10_256_8", "--data_url", cifar10, "--eval_every", "25", "--ckpt_keep_num", "1"]
    recipe += ["--execution", "fused"]
    return [str(REPOSITORY / "train.py"), *recipe, *runs]


def run(step: str, options: argparse.Namespace, folder: Path, seconds: float) -> dict[str, object]:
    """Run a step and say how it ended; its output goes to the screen and to `<step>.log`."""
    arguments = command(step, options, folder)
    if isinstance(arguments, str):
        return {"left_out": arguments}
    log = options.output / f"{step}.log"
    print(f"=== {step}: {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT, text=True
        )
        try:
            code: int | str = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "out of time"
    text = log.read_text(encoding="utf-8", errors="replace")
    print("\n".join(text.splitlines()[-options.lines :]), flush=True)
    found: dict[str, object] = {"exit": code, "seconds": round(time.monotonic() - start, 1)}
    scores = re.findall(r"'Top1-Acc': ([0-9.]+)", text)
    return found | ({"top1": float(scores[-1])} if scores else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--cifar10", type=Path, default=None, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all steps together")
    parser.add_argument("--lines", type=int, default=40, help="lines of a step's log that are printed")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the results and logs")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("a CUDA GPU is needed; on a CPU: model_speed.py, training_curves.py", file=sys.stderr)
        return 2
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    ended: dict[str, object] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    for step in options.steps:
        left = end - time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            ended[step] = run(step, options, Path(folder), left) if left > 5 else {"left_out": "no time left"}
        (options.output / "gpu_session.json").write_text(json.dumps(ended, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(ended))
    return 0 if all(not isinstance(end, dict) or end.get("exit", 0) == 0 for end in ended.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
