"""A training run from options to its result, in this process, alone or as one of several."""

from __future__ import annotations

import logging

from convmixer.config.model_zoo import difference
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config, refuse_contradictions
from convmixer.devices import choose_device
from convmixer.distributed.processes import Processes, process_group
from convmixer.runs.result import RunResult
from convmixer.training.build import build_trainer
from convmixer.training.frozen.train_head import as_one_pass, train_head
from convmixer.training.resolve import resolve_run

logger = logging.getLogger(__name__)


def run_training(resolved: Resolved[Config], processes: Processes, command: str) -> RunResult | None:
    """Train to the end; the result, None in all processes but the first. `command`: for the run's record.

    Raises UserError for what does not fit or fails, and `signals.Stopped` after a clean save where a signal came.
    """
    config = resolved.options
    refuse_contradictions(config)
    index = config.device_id if processes.count == 1 else processes.local_rank
    device, remark = choose_device(config.device_target, index, is_required=resolved.is_explicit("device_target"))
    if processes.is_first:
        for line in (f"recipe {resolved.recipe}", *_remarks(resolved), *([remark] if remark else [])):
            logger.info(line)
    with process_group(processes, device, config.dist_timeout):
        say = logger.info if processes.is_first else lambda _: None
        if config.freeze:
            return train_head(resolve_run(as_one_pass(resolved, say), device, processes, command, say), say)
        trainer = build_trainer(resolve_run(resolved, device, processes, command, say), say)
        trainer.run()
    return trainer.checkpoint_manager.result(trainer.state)


def _remarks(resolved: Resolved[Config]) -> list[str]:
    """What a user who comes from the model zoo must know of the defaults."""
    options, remarks = resolved.options, []
    if options.optimizer_averages and options.lr_scheduler != "constant_lr":
        remarks.append(f"{options.optimizer} is meant for --lr_scheduler constant_lr, with a warm-up if any")
    if (options.freeze or options.unfreeze_epoch) and options.pretrained is None and options.resume is None:
        what = "--freeze" if options.freeze else "--unfreeze_epoch"
        remarks.append(f"{what} without --pretrained: what stays as it is has learnt nothing")
    if options.defaults == "model_zoo":
        return [*remarks, "defaults are the model zoo's where it has others"]
    line = difference(resolved)
    return remarks if line is None else [*remarks, line]
