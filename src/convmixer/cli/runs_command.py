"""`convmixer runs`: the runs below a folder of summaries, with their scores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from convmixer.cli.output_file import as_json, check_writable, write_output
from convmixer.config.checks import RunsOptions
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.printable import printable
from convmixer.runs.listing import ListedRun, list_runs

COMMAND = Command("runs", "List the runs, the newest first, with their best top-1.", RunsOptions)


def run(resolved: Resolved[RunsOptions]) -> int:
    options = resolved.options
    root = Path(options.summary_root_dir)
    if not root.is_dir():
        raise UserError(f"--summary_root_dir: there is no folder {root}; a first run makes it")
    output = check_writable(options.json_file, "--json")
    runs = list_runs(root)
    if output is not None:
        write_output(output, as_json([asdict(each) for each in runs]), "written")
    for line in _table(runs):
        print(line)
    return 0


def _table(runs: list[ListedRun]) -> list[str]:
    if not runs:
        return ["no runs"]
    rows = [("run", "top-1", "state", "data")]
    rows += [
        (each.name, "" if each.top1 is None else f"{each.top1:.4f}", each.state, printable(each.data)) for each in runs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    best = max((each.top1 for each in runs if each.top1 is not None), default=None)
    lines = []
    for row, listed in zip(rows, [None, *runs], strict=True):
        mark = "  *" if listed is not None and best is not None and listed.top1 == best and len(runs) > 1 else ""
        lines.append("  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]) + mark)
    return [line.rstrip() for line in lines]
