"""Whether the fused network answers as the plain one: each variant, in training and evaluation mode, by every plan.

    python benchmarks/network_check.py [--variants ...] [--precisions fp32 bf16] [--output network_check.json]
    TRITON_INTERPRET=1 python benchmarks/network_check.py --device cpu --dim 4 --size 28 --batch 2 --precisions fp32

Two blocks of the variant's width, on pictures and with BatchNorm statistics that fit them, against eager fp32 by the
check that the choice of a backend stands on (`convmixer.backends.autotune.benchmark`): logits, and each parameter's
gradient. In more blocks, rounding alone grows until nothing can be told (eager bf16 in training mode is 1.08 off for a
new 768/32), and with a new network's statistics all images have the same logits in evaluation mode, right or wrong.
fp32 finds what is wrong in a kernel's logic, to 1e-4 of the logits; bf16 what is wrong with its 16-bit form. Exit code
1: one is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import torch
from pictures import pictures, settle_statistics
from torch import Tensor

from convmixer.arch import VARIANTS, Architecture
from convmixer.backends.autotune.benchmark import Check, exact_fp32, reason
from convmixer.backends.function import FunctionOfModel
from convmixer.backends.registry import Backend
from convmixer.backends.workload import Workload
from convmixer.kernels.block import fused_forward, reason_against_fused
from convmixer.kernels.plan import Plan
from convmixer.model import ConvMixer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BLOCKS = 2
# Of gradients in fp32, tighter than the choice of a backend needs, so that a sum which is 1 % off shows. Not for ReLU,
# where rounding moves some values across 0: eager in two layouts is up to 7e-3 apart (2e-4 with GELU).
FP32_GRADIENTS = 3e-3

Forward = Callable[[ConvMixer, Tensor], Tensor]


@dataclass
class Checked:
    """An answer: relative distance to eager fp32 of the logits and of the gradient that is worst for its limit."""

    variant: str
    mode: str
    precision: str
    plan: str
    right: bool
    logits: float = 0.0
    logits_limit: float = 0.0
    gradient: float = 0.0
    gradient_limit: float = 0.0
    seconds: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        errors = f"logits {self.logits:.1e} of {self.logits_limit:.1e}"
        if self.mode == "training":
            errors += f", gradients {self.gradient:.1e} of {self.gradient_limit:.1e}"
        verdict = "right" if self.right else "WRONG"
        title = f"{self.variant} {self.mode} {self.precision} [{self.plan}]"
        return f"{verdict} {title}: {self.note or errors} ({self.seconds:.1f} s)"


def find_backend(name: str, forward: Forward) -> Backend:
    """A function of model and images as a backend."""
    return Backend(name, "fused", lambda workload: True, lambda model, workload, plan: FunctionOfModel(model, forward))


class NetworkCheck:
    """The right answer of a network of a variant's width, and the check against it."""

    def __init__(
        self, arch: Architecture, size: int, batch: int, dtype: torch.dtype, training: bool, device: torch.device
    ) -> None:
        torch.manual_seed(0)
        arch = replace(arch, depth=min(arch.depth, BLOCKS))
        model = ConvMixer(arch).to(device)
        settle_statistics(model, pictures(batch, size, seed=1).to(device))
        workload = Workload(arch, size, batch, dtype, training, device)
        self._exact = partial(exact_fp32, workload)
        with self._exact():
            self.check = Check(
                model, workload, find_backend("eager", lambda model, images: model(images)), pictures(batch, size, 2)
            )
        if dtype == torch.float32 and arch.activation != "relu":
            self.check.limits[1:] = [min(limit, FP32_GRADIENTS) for limit in self.check.limits[1:]]

    def __call__(self, checked: Checked, forward: Forward) -> Checked:
        """`checked` filled in with what `forward` answers."""
        start = time.perf_counter()
        try:
            with self._exact():
                errors = self.check.errors(find_backend(checked.plan, forward))
        except Exception as error:  # what a compiler or a GPU raises is this plan's answer
            return replace(checked, right=False, note=reason(error), seconds=time.perf_counter() - start)
        limits = self.check.limits
        worst = max(zip(errors[1:], limits[1:], strict=True), key=lambda pair: pair[0] / pair[1], default=(0.0, 0.0))
        return replace(
            checked,
            right=all(error <= limit for error, limit in zip(errors, limits, strict=True)),
            logits=errors[0],
            logits_limit=limits[0],
            gradient=worst[0],
            gradient_limit=worst[1],
            seconds=time.perf_counter() - start,
        )


def plans() -> list[Plan]:
    """The plan that holds where nothing has been measured, and for each field with names of forms each other form."""
    hints = get_type_hints(Plan)
    found = [Plan()]
    for field in fields(Plan):
        forms = [form for form in get_args(hints[field.name]) if isinstance(form, str)]
        others: list[dict[str, Any]] = [{field.name: form} for form in forms if form != getattr(Plan(), field.name)]
        found += [replace(Plan(), **other) for other in others]
    return found


def checks(name: str, precision: str, options: argparse.Namespace, device: torch.device) -> Iterator[Checked]:
    """All answers of a variant in a precision."""
    arch = VARIANTS[name] if options.dim is None else replace(VARIANTS[name], dim=options.dim, num_classes=10)
    for training in (True, False):
        mode = "training" if training else "evaluation"
        check = NetworkCheck(arch, options.size, options.batch, DTYPES[precision], training, device)
        for plan in plans()[: options.plans]:
            if not training and plan.keep != Plan().keep:
                continue  # a form of the backward pass alone
            yield check(
                Checked(name, mode, precision, str(plan), right=False), partial(_fused, plan=plan, training=training)
            )


def _fused(model: ConvMixer, images: Tensor, plan: Plan, training: bool) -> Tensor:
    with torch.set_grad_enabled(training):
        against = reason_against_fused(model, images)
    if against is not None:
        raise RuntimeError(f"not our kernels: {against}")
    return fused_forward(model, images, plan)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64, help="64 fill the tiles that larger ones take")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dim", type=int, default=None, help="channels; left out: the variant's")
    parser.add_argument("--plans", type=int, default=None, help="only the first so many of the plans")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    found: list[Checked] = []
    for name in options.variants:
        for precision in options.precisions:
            for one in checks(name, precision, options, torch.device(options.device)):
                found.append(one)
                print(one, flush=True)
                if options.output is not None:
                    record: list[dict[str, Any]] = [asdict(answer) for answer in found]
                    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    wrong = [one for one in found if not one.right]
    print(f"{len(found) - len(wrong)} right, {len(wrong)} wrong" + "".join(f"; {one}" for one in wrong[:1]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
