"""A run as it would be, resolved to be measured and not to be made: one process, no folders."""

from __future__ import annotations

import logging
from typing import TypeVar

from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config, refuse_contradictions
from convmixer.devices import choose_device
from convmixer.distributed.processes import Processes
from convmixer.errors import UserError
from convmixer.training.resolve import resolve_run
from convmixer.training.resolved_run import ResolvedRun

logger = logging.getLogger(__name__)

_Options = TypeVar("_Options", bound=Config)


def planned_run(resolved: Resolved[_Options], command: str) -> ResolvedRun:
    """The run that the options of a command that measures ask for.

    Raises UserError for all that a run refuses, for several processes, and for a run to go on with.
    """
    config = resolved.options
    refuse_contradictions(config)
    if Processes.from_environment().count > 1 or (config.device_num > 1 and not resolved.is_default("device_num")):
        raise UserError(f"device_num: {command} measures in one process; leave it out, or give 1")
    if config.resume is not None:
        raise UserError(f"--resume: {command} looks at a new run; leave it out")
    if config.freeze:
        raise UserError(
            f"--freeze: takes no steps, which {command} measures, but one pass over the images; leave it out"
        )
    required = resolved.is_explicit("device_target")
    device, remark = choose_device(config.device_target, config.device_id, is_required=required)
    for line in (f"recipe {resolved.recipe}", remark):
        if line is not None:
            logger.info(line)
    return resolve_run(resolved, device, Processes(), command, logger.info)  # type: ignore[arg-type]
