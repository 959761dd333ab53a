"""MLflow tracking (https://mlflow.org/docs/latest/ml/tracking). Its own variables hold: MLFLOW_TRACKING_URI ..."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

# These are read when it is imported. It would report its own use to its makers, which nobody has asked for; it would
# tell on stderr of what it does; and it would try for 17 minutes to reach a server that does not answer.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from convmixer.training.logging.metric_logger import PROJECT, LoggedRun

_MAX_PARAMETERS = 100  # of one call


class Logger:
    """A run of MLflow's, with the run's name; a thread sends. A resumed run goes on in it.

    MLflow does not take points back: those of steps that a resumed run makes again stand there twice.
    """

    _client: MlflowClient
    _id: str

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: deque[Future[Any]] = deque()

    def open(self, run: LoggedRun) -> str:
        self._client = MlflowClient()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = run.remote_id("mlflow")
        if known is not None:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            return f"experiment {experiment}, run {known}"  # its parameters cannot be changed
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self._id = self._client.create_run(number, run_name=run.name).info.run_id
        run.keep_remote_id("mlflow", self._id)
        parameters = [Param(name, str(value)) for name, value in run.options.items()]
        for start in range(0, len(parameters), _MAX_PARAMETERS):
            self._send(self._client.log_batch, self._id, params=parameters[start : start + _MAX_PARAMETERS])
        return f"experiment {experiment}, run {self._id}"

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)  # milliseconds
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._send(self._client.log_batch, self._id, metrics=metrics)

    def picture(self, name: str, image: np.ndarray) -> None:
        self._send(self._client.log_image, self._id, image, artifact_file=f"{name}.png")

    def close(self, *, failed: bool) -> None:
        self._send(self._client.set_terminated, self._id, status="FAILED" if failed else "FINISHED")
        self._check(wait=True)
        self._thread.shutdown()

    def _send(self, call: Callable[..., Any], *words: Any, **named: Any) -> None:
        self._check()
        self._sending.append(self._thread.submit(call, *words, **named))

    def _check(self, *, wait: bool = False) -> None:
        """Raise what a call before has raised; those that wait are then left out."""
        try:
            while self._sending and (wait or self._sending[0].done()):
                self._sending.popleft().result()
        except Exception:
            self._thread.shutdown(wait=False, cancel_futures=True)
            raise
