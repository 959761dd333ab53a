"""`convmixer plan`: what a run will take, and what to mind."""

from __future__ import annotations

from convmixer.cli.output_file import as_json, check_writable, write_output
from convmixer.config.commands import PLAN as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import PlanConfig

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[PlanConfig]) -> int:
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.planning.plan import make_plan
    from convmixer.planning.planned_run import planned_run
    from convmixer.planning.table import to_record, to_text
    from convmixer.planning.traps import traps

    path = check_writable(resolved.options.json_file, "--json")
    planned = planned_run(resolved, "plan")
    found, plan = traps(planned), make_plan(planned)
    print(to_text(plan, found))
    if path is not None:
        write_output(path, as_json(to_record(plan, found)), "written")
    return 0
