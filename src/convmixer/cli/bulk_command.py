"""`convmixer bulk`: very many images to parts of answers; what was stopped goes on where it was."""

from __future__ import annotations

import logging

from convmixer.bulk.classify import BulkWork, this_process
from convmixer.cli.raising_signals import RaisingSignals, Signalled
from convmixer.config.bulk import BulkOptions
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.data.folders import ignored_line
from convmixer.terminal.progress import Progress

logger = logging.getLogger(__name__)

COMMAND = Command(
    "bulk",
    "Classify the images of DATA into parts of answers in the folder OUT. What was stopped or killed goes on where the "
    "same is run again. Under torchrun the processes share the work. An image that cannot be read has a record that "
    "says why, and is no error.",
    BulkOptions,
    positional="data out",
)


def run(resolved: Resolved[BulkOptions]) -> int:
    options = resolved.options
    rank, processes = this_process()
    work = BulkWork.opened(resolved)
    if work.images.ignored and rank == 0:
        logger.info(ignored_line(work.images.ignored, "the images"))
    # Parts next to each other, so that what is read in one go is read by one process.
    missing = work.parts.missing()
    mine = [part for part in missing if part * processes // max(work.parts.count, 1) == rank]
    if len(missing) < work.parts.count and rank == 0:
        logger.info(f"{work.parts.count - len(missing)} of {work.parts.count} parts are there already")
    answered = unreadable = 0
    if mine:
        total = sum(len(work.parts.indices(part)) for part in mine)
        model = work.open_model(mine) if options.ray is None else None  # its start is no part of the rate
        with Progress(total, "bulk", enabled=rank == 0) as progress:
            try:
                with RaisingSignals():
                    if model is not None:
                        answered, unreadable = work.classify(model, mine, progress.add)
                    else:
                        from convmixer.bulk.on_ray import classify_on_ray

                        answered, unreadable = classify_on_ray(work, mine, progress.add)
            except Signalled as signalled:
                left = len(work.parts.missing())
                logger.warning(
                    f"{signalled}; {work.parts.count - left} of {work.parts.count} parts are whole, "
                    "and the same command goes on"
                )
                return signalled.exit_code
            rate = progress.rate
        logger.info(f"{answered} images answered, {unreadable} could not be read, {rate:.1f} img/s")
    if rank == 0 or not work.parts.missing():
        print(f"{options.out}: {work.parts.count} parts of {work.parts.images} images")
    return 0
