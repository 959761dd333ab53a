"""`make recipes`: run the recipes, in full or in a short form, and compare with what was recorded for them.

The digits come with the package; CIFAR-10 and a folder of photos are used where the command line names them. Recorded
numbers lie in benchmarks/results/recipes.json; `--record` writes them anew, from the runs of this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "recipes.json"

# Of recipes for larger images: their optimizer, schedule and augmentation on the digits, in a network for these.
_ON_DIGITS = {
    "set": "digits",
    "arch": "convmixer_64_4",
    "kernel_size": 5,
    "patch_size": 1,
    "in_chans": 1,
    "num_classes": 10,
    "image_size": 8,
    "mean": (0.3,),
    "std": (0.38,),
    "hflip": 0.0,
    "min_crop": 0.7,
    "batch_size": 64,
    "epochs": 8,
    "num_parallel_workers": 0,
    "amp_level": "O0",
    "use_clip_grad_norm": True,
}

_CIFAR10 = {"train_num_samples": 5000, "val_num_samples": 2000, "epochs": 2, "amp_level": "O0"}


@dataclass(frozen=True)
class Check:
    """A run and how far its top-1 may be below what was recorded; `data`: the option that names what it needs."""

    name: str
    recipe: str
    options: dict[str, Any]
    tolerance: float
    data: str | None = None


CHECKS = (
    Check("digits", "digits", {}, 0.01),
    Check("small_folder, short, on digits", "small_folder", _ON_DIGITS, 0.03),
    Check("cifar10_256_8, short, on digits", "cifar10_256_8", {**_ON_DIGITS, "auto_augment": None}, 0.03),
    Check("convmixer_768_32, short, on digits", "convmixer_768_32", {**_ON_DIGITS, "base_lr": 0.01}, 0.05),
    Check("convmixer_1536_20, short, on digits", "convmixer_1536_20", _ON_DIGITS, 0.05),
    Check("small_folder", "small_folder", {}, 0.02, "photos"),
    Check("cifar10_256_8, 5,000 images, 2 epochs", "cifar10_256_8", {**_CIFAR10, "batch_size": 64}, 0.05, "cifar10"),
    Check("cifar10_256_8_muon, 5,000 images, 2 epochs", "cifar10_256_8_muon", _CIFAR10, 0.05, "cifar10"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", metavar="FOLDER", help="a folder of photos with train and val")
    parser.add_argument("--cifar10", metavar="FOLDER", help="the folder of cifar-10-batches-py")
    parser.add_argument("--record", action="store_true", help="write what is found, instead of comparing with it")
    given = parser.parse_args()
    recorded: dict[str, float] = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    failed = False
    for check in CHECKS:
        folder = None if check.data is None else getattr(given, check.data)
        if check.data is not None and folder is None:
            print(f"{check.name:<42} left out: --{check.data} names no folder")
            continue
        top1 = run(check, folder)
        if given.record:
            recorded[check.name] = top1
        expected = recorded.get(check.name)
        is_right = expected is not None and top1 >= expected - check.tolerance
        failed |= not is_right
        verdict = "as recorded" if is_right else "NOT as recorded" if expected is not None else "not recorded"
        print(f"{check.name:<42} top-1 {top1:.4f}, recorded {expected}: {verdict}", flush=True)
    if given.record:
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")
    return int(failed)


def run(check: Check, folder: str | None) -> float:
    """Train as the check says, in a folder that is thrown away; the best top-1."""
    sys.path.insert(0, str(ROOT / "src"))
    import convmixer

    with tempfile.TemporaryDirectory() as runs:
        places: dict[str, Any] = {f"{name}_root_dir": f"{runs}/{name}" for name in ("summary", "ckpt", "best_ckpt")}
        result = convmixer.train(folder, recipe=check.recipe, log_to=(), **check.options, **places)
    assert result is not None
    assert result.best_top1 is not None
    return result.best_top1


if __name__ == "__main__":
    sys.exit(main())
