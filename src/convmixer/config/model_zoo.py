"""The defaults of the MindSpore model zoo's program, where they are others than ours.

They are those of its command line (research/cv/convmixer, `src/config.py`). Where its data and results lie (`./data`,
`./checkpoints/` ...), its 1,000 classes and its network, `convmixer_256_3`, which it does not have, stay out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmixer.config.options import in_declared_case
from convmixer.config.recipes import is_shipped

if TYPE_CHECKING:
    from convmixer.config.resolved import Resolved
    from convmixer.config.schema import Config

# What changes the network that comes out.
_LEARNING: dict[str, Any] = {
    "base_lr": 0.01,
    "warmup_lr": 5e-7,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "aa_interpolation": "bilinear",
    "re_mode": "pixel",
    "batch_size": 256,
    "amp_level": "O2",
    "is_dynamic_loss_scale": True,
}
DEFAULTS: dict[str, Any] = _LEARNING | {
    "num_parallel_workers": 8,
    "ckpt_save_every_sec": 3600.0,
    "print_loss_every": 20,
    "summary_loss_collect_freq": 1,
}


def defaults_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """The lowest layer of options: the model zoo's defaults where `given` asks for them, else nothing."""
    wanted = str(given.get("defaults"))
    return dict(DEFAULTS) if in_declared_case(wanted, ("model_zoo",)) == "model_zoo" else {}


def difference(resolved: Resolved[Config]) -> str | None:
    """What the user's YAML file leaves out that the model zoo would learn otherwise by, in a line; None: nothing.

    Nothing is said of a shipped recipe, nor once `defaults` was chosen.
    """
    if resolved.recipe is None or is_shipped(Path(resolved.recipe)) or not resolved.is_default("defaults"):
        return None
    ours = {name: getattr(resolved.options, name) for name in _LEARNING if resolved.is_default(name)}
    if "aa_interpolation" in ours:
        ours["aa_interpolation"] = resolved.options.policy_interpolation
    others = [f"{name} {_LEARNING[name]} ({value})" for name, value in ours.items() if value != _LEARNING[name]]
    if not others:
        return None
    return (
        f"{resolved.recipe} leaves out what has another default in the model zoo: {', '.join(others)}; "
        "ours, in brackets, hold, --defaults model_zoo takes theirs"
    )
