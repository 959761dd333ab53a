"""The forms of the fused passes that suit a workload, found by timing them on the GPU."""

from __future__ import annotations

from collections.abc import Callable

from convmixer.backends.autotune.benchmark import reason
from convmixer.backends.autotune.trial import release
from convmixer.backends.workload import Workload


def find_plan(workload: Workload, say: Callable[[str], None]) -> str | None:
    """The text of the plan whose passes are the fastest on this machine; None, with a line why, where that fails."""
    say("execution: timing the forms of the fused passes")
    try:
        from convmixer.kernels.tuning import tuned_plan

        plan = tuned_plan(
            workload.arch,
            workload.batch_size,
            workload.image_size,
            workload.dtype,
            workload.device,
            training=workload.training,
            recompute=workload.recompute,
            say=say,
        )
    except Exception as error:  # whatever a compiler or a driver raises, the default forms are there
        say(f"execution: forms not timed, the default ones are taken ({reason(error)})")
        return None
    finally:
        release(workload.device)
    return str(plan)
