"""The same work as a job of Ray Data: each of its actors has the model once and does part after part."""

from __future__ import annotations

import logging
import os
from typing import Any

from convmixer.bulk.classify import BulkWork
from convmixer.config.bulk import BulkOptions
from convmixer.config.resolved import Resolved
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.packages import needed_for

LOCAL = "local"


class PartActor:
    """Does parts on a machine of the cluster, which must see the images, the model and the folder as this one does."""

    def __init__(self, resolved: Resolved[BulkOptions]) -> None:
        self._work = BulkWork.opened(resolved)
        self._model = self._work.open_model(range(self._work.parts.count))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Parts {"part": int64 [n]} -> the same, and how many images were answered, and could not be read."""
        done = [self._work.classify(self._model, [int(part)]) for part in batch["part"]]
        return {"part": batch["part"], "answered": [each[0] for each in done], "unreadable": [each[1] for each in done]}


def classify_on_ray(work: BulkWork, missing: list[int], on_part: Any) -> tuple[int, int]:
    """Have a cluster do the missing parts; `on_part` gets the number of images of each.

    Returns how many images were answered, and how many could not be read. Ray starts
    anew what dies: a part that is written twice is the same part. Raises UserError where Ray is not installed, or
    cannot be reached, and (exit 1) where the job fails.
    """
    with needed_for("--ray"):
        import ray
        import ray.data
    options = work.resolved.options
    address = None if options.ray == LOCAL else options.ray
    # Its own bars and notices would stand between ours.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if not ray.is_initialized():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address is None else None,
            )
        ray.data.DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        actors = options.ray_actors or gpus or max(cores // 2, 1)
        each: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": max(cores // actors, 1)}
        found = ray.data.from_items([{"part": part} for part in missing], override_num_blocks=len(missing)).map_batches(
            PartActor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(missing))),
            fn_constructor_args=(work.resolved,),
            **each,
        )
        answered = unreadable = 0
        for row in found.iter_rows():
            answered, unreadable = answered + int(row["answered"]), unreadable + int(row["unreadable"])
            on_part(int(row["answered"]) + int(row["unreadable"]))
    except UserError:
        raise
    except Exception as error:  # Ray's errors have no base class of their own
        cause = getattr(error, "cause", None) or error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"--ray: {first_line(cause)}", exit_code=RUN_FAILED) from None
    finally:
        ray.shutdown()
    return answered, unreadable
