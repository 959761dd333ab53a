"""What `make demo` shows: train on the built-in digits, evaluate the saved weights, classify sample images."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from convmixer.cli.main import main


def run(*words: str) -> None:
    """Show a command and run it in this process; its failure ends the demo."""
    print(f"\n$ convmixer {shlex.join(words)}", flush=True)
    code = main(words)
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    runs = ROOT / "runs" / "demo"
    roots = [f"--{kind}_root_dir={runs / kind}" for kind in ("summary", "ckpt", "best_ckpt")]
    run("train", "--config", "digits", *roots)
    best = str(max((runs / "best_ckpt").iterdir()) / "best.safetensors")
    run("eval", "--config", "digits", "--pretrained", best)
    answers = str(Path(tempfile.mkdtemp()) / "predictions.json")
    run(
        "infer",
        str(ROOT / "samples" / "digits"),
        "--checkpoint",
        best,
        "--format",
        "full",
        "--topk",
        "2",
        "-o",
        answers,
    )
