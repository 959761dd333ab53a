"""MLflow with its database in a file, read by MLflow's client."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.training.logging.loggers.conftest import NAME, OPTIONS, LogRun

pytest.importorskip("mlflow", reason="needs the extra mlflow")
pytest.importorskip("sqlalchemy", reason="needs the extra mlflow")

from mlflow import MlflowClient

from convmixer.training.logging.loggers.mlflow import Logger
from convmixer.training.logging.metric_logger import LoggedRun
from convmixer.training.logging.run_metrics import RunMetrics

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _database(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")


def curve(identity: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient().get_metric_history(identity, name)]


def test_what_is_written_and_resumed(here: Path, log_run: LogRun) -> None:
    log_run("mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("convmixer")
    (found,) = client.search_runs([experiment.experiment_id])
    identity = found.info.run_id
    assert (found.info.run_name, found.info.status) == (NAME, "FINISHED")
    assert found.data.params == {name: str(value) for name, value in OPTIONS.items()}
    assert [file.path for file in client.list_artifacts(identity)] == ["input.png"]
    log_run("mlflow", resumed=True, failed=True)
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (identity, "FAILED")
    assert sorted(curve(identity, "train/loss")) == [(1, 1.0), (2, 0.5), (3, 0.25), (3, 0.375)]
    assert curve(identity, "eval/Top1-Acc") == [(3, 0.75), (3, 0.75)]
    assert curve(identity, "train/skipped") == [(1, 0.0), (2, 0.0), (3, 0.0)]


class Refusing:
    """A client whose server is there at the start and then refuses all but one call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refused = threading.Event()

    def update_run(self, identity: str, status: str) -> None:
        self.calls.append(status)

    def log_batch(self, identity: str, metrics: list[object]) -> None:
        self.calls.append("log_batch")
        if self.calls.count("log_batch") == 2:
            self.refused.set()
            raise ConnectionError("the server is gone")

    def set_terminated(self, identity: str, status: str) -> None:
        self.calls.append(status)


def test_what_its_thread_meets_ends_it_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Refusing()
    monkeypatch.setattr("convmixer.training.logging.loggers.mlflow.MlflowClient", lambda: client)
    run = LoggedRun("run", tmp_path, {}, resumed_at=0)
    run.keep_remote_id("mlflow", "abc")
    metrics = RunMetrics(run, {"mlflow": Logger()})
    metrics.write("train", 1, {"loss": 1.0})
    metrics.write("train", 2, {"loss": 1.0})
    assert client.refused.wait(10)
    metrics.close()
    assert capsys.readouterr().err.splitlines()[1:] == [
        "mlflow: the server is gone: no more is logged to it; the run goes on"
    ]
    assert client.calls[:3] == ["RUNNING", "log_batch", "log_batch"]
