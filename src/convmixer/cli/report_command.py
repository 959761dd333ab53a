"""`convmixer report`: the page that explains a run, or compares several."""

from __future__ import annotations

from pathlib import Path

from convmixer.config.checks import RunReportOptions
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.errors import RUN_FAILED, UserError

COMMAND = Command(
    "report",
    "Explain a run in report.html of its summary, or compare several runs in one page.",
    RunReportOptions,
    positional="runs",
)


def run(resolved: Resolved[RunReportOptions]) -> int:
    options = resolved.options
    if not options.runs:
        raise UserError("RUNS: a run is needed, its folder or its name; convmixer runs lists them")
    from convmixer.report.write import write_comparison, write_report
    from convmixer.runs.record import RunRecord

    records = {record.name: record for record in map(RunRecord.open, options.runs)}
    try:
        if len(records) == 1 and options.output is None:
            path = write_report(next(iter(records.values())))
        else:
            path = Path(options.output or "runs.html")
            write_comparison(records, path)
    except OSError as error:
        raise UserError(f"{error.filename or options.output}: {error.strerror}", exit_code=RUN_FAILED) from None
    print(path)
    return 0
