"""`convmixer doctor`: is this machine fit to train on, and if not, what mends it."""

from __future__ import annotations

import json
from pathlib import Path

from convmixer.config.checks import DoctorOptions
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.doctor.check_result import CheckResult, healthy, to_record, to_text
from convmixer.doctor.engine import engine
from convmixer.doctor.machine import disks, extras, memory, packages, processor, python, shared_memory
from convmixer.errors import RUN_FAILED, UserError

COMMAND = Command(
    "doctor",
    "Check this machine by doing what training does, and name the fix for each fault. Exit code 1: something that "
    "every run needs is not there or fails.",
    DoctorOptions,
)


def run(resolved: Resolved[DoctorOptions]) -> int:
    options = resolved.options
    results = run_checks(options)
    print(to_text(results))
    if options.json_file is not None:
        path = Path(options.json_file)
        try:
            path.write_text(json.dumps(to_record(results), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json: {path} cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
    return 0 if healthy(results) else RUN_FAILED


def run_checks(options: DoctorOptions) -> list[CheckResult]:
    """All checks, the cheap ones first."""
    folders = (options.summary_root_dir, options.ckpt_root_dir, options.best_ckpt_root_dir)
    return [
        python(),
        packages(),
        extras(),
        processor(),
        memory(),
        shared_memory(),
        *disks(folders),
        *engine(),
    ]
