"""`convmixer plan`: what a run will take, and what to mind."""

from __future__ import annotations

import json

from convmixer.config.commands import PLAN as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import PlanConfig
from convmixer.errors import RUN_FAILED, UserError

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[PlanConfig]) -> int:
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.planning.plan import make_plan
    from convmixer.planning.planned_run import output_file, planned_run
    from convmixer.planning.table import to_record, to_text
    from convmixer.planning.traps import traps

    path = output_file(resolved.options.json_file, "--json")
    planned = planned_run(resolved, "plan")
    found, plan = traps(planned), make_plan(planned)
    print(to_text(plan, found))
    if path is not None:
        try:
            path.write_text(json.dumps(to_record(plan, found), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json: {path} cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
    return 0
