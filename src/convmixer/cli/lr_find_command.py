"""`convmixer lr-find`: a learning rate for a run, by a range test."""

from __future__ import annotations

import logging

from convmixer.cli.output_file import check_writable, write_output
from convmixer.config.commands import LR_FIND as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import LrFindConfig

__all__ = ["COMMAND", "run"]
logger = logging.getLogger(__name__)


def run(resolved: Resolved[LrFindConfig]) -> int:
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.planning.planned_run import planned_run
    from convmixer.planning.range_plot import plot
    from convmixer.planning.range_test import range_test, reasons, suggested_base_lr

    options = resolved.options
    picture = check_writable(options.plot_file, "--plot")
    planned = planned_run(resolved, "lr-find")
    curve = range_test(planned, options)
    for line in reasons(planned, curve):
        logger.info(line)
    if picture is not None:
        config = planned.config
        title = f"{config.arch}, {config.optimizer}, batch {planned.sampler.global_batch}"
        write_output(picture, plot(curve, title), "the curve")
    print(f"suggested --base_lr {suggested_base_lr(planned, curve):.2g}")
    return 0
