"""Options of what is measured before a run: the range test of the learning rate, and the plan."""

from __future__ import annotations

from convmixer.config.options import Options, option


class RangeTestOptions(Options):
    """Range test"""

    lr_start: float = option(1e-5, "learning rate of the first step", other_names="start_lr", commands="lr-find", gt=0)
    lr_end: float = option(1.0, "learning rate of the last step", other_names="end_lr", commands="lr-find", gt=0)
    lr_steps: int = option(
        100, "steps from one to the other", other_names="num_iter steps", commands="lr-find", ge=20, le=100_000
    )
    plot_file: str | None = option(
        None,
        "PNG file of the curve; left out: none is written",
        also="plot",
        path=True,
        other_names="output out o png",
        commands="lr-find",
    )


class PlanOptions(Options):
    """Plan"""

    json_file: str | None = option(
        None, "the plan as JSON", also="json", path=True, other_names="output out o", commands="plan"
    )
