"""The launcher of several processes: signals handed on, exit codes, restarts; small programs in the network's place."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from convmixer.distributed import launch
from convmixer.errors import UserError
from convmixer.signals import STOP_SIGNALS

BEGIN = "import os, pathlib, signal, sys, time; rank = int(os.environ['RANK'])\n"
# When both run, the second sends {sent} to the launcher. Told to stop, a process "saves" for a moment and ends.
TRAINS = """
def stop(number, _):
    time.sleep({saving})
    sys.exit({last} if rank == 1 else 128 + number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, stop)
pathlib.Path(str(rank)).touch()
while not (pathlib.Path("0").exists() and pathlib.Path("1").exists()):
    time.sleep(0.01)
for number in {sent} if rank == 1 else []:
    os.kill(os.getppid(), number)
time.sleep(30)
"""

Launch = Callable[..., int]


@pytest.fixture
def launched(here: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """`launch` of two processes that run a Python program."""

    def run(program: str, **options: int) -> int:
        script = here / "program"
        script.write_text(f"#!{sys.executable}\n{BEGIN}{program}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return launch.launch(2, ["train"], **options)

    return run


def trains(*sent: int, last: str = "128 + number", saving: float = 0.1) -> str:
    return TRAINS.format(sent=[int(number) for number in sent], last=last, saving=saving)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_handed_on(number: signal.Signals, launched: Launch) -> None:
    before = signal.getsignal(number)
    assert launched(trains(number)) == 128 + number
    assert signal.getsignal(number) == before


def test_saving_may_take_longer_than_a_failed_run_has(launched: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.7)
    assert launched(trains(signal.SIGTERM, saving=1)) == 143


def test_who_has_not_saved_does_not_end_as_if(launched: Launch) -> None:
    with pytest.raises(UserError, match="stopped by SIGTERM, but not saved: process 1 failed") as caught:
        launched(trains(signal.SIGTERM, last="1"), max_restarts=3)
    assert caught.value.exit_code == 1


def test_an_ignored_signal_is_ignored_by_all(launched: Launch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert launched(trains(signal.SIGHUP, signal.SIGTERM)) == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_before_training_begins_there_is_nothing_to_save(launched: Launch) -> None:
    assert launched("if rank == 0: os.kill(os.getppid(), signal.SIGUSR1)\ntime.sleep(30)") == 138


def test_a_process_that_hangs_after_anothers_failure_is_killed(
    launched: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    hangs = "if rank == 0: sys.exit(3)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(30)"
    assert launched(hangs) == 3


def test_a_second_interrupt_ends_who_cannot_hear_it(launched: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    # Pressed again and again, since two at the same instant would be one.
    program = """
signal.signal(signal.SIGINT, lambda *_: None)
pathlib.Path(str(rank)).touch()
while True:
    if rank == 1 and pathlib.Path("0").exists():
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.1)
"""
    with pytest.raises(UserError, match=r"stopped by SIGINT, but not saved: process [01] was killed by SIGKILL"):
        launched(program)


def test_a_killed_process_is_logged(launched: Launch) -> None:
    with pytest.raises(UserError, match="process 1 was killed by SIGKILL; the run has ended") as caught:
        launched("if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(30)")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("codes", "starts", "code"),
    # Wrong use stays wrong, and who was told to stop wants no new start.
    [([1, 1, 0], 3, 0), ([1, 1, 1], 3, 1), ([2], 1, 2), ([143], 1, 143), ([0], 1, 0)],
)
def test_a_failed_run_is_started_again(codes: list[int], starts: int, code: int, launched: Launch, here: Path) -> None:
    attempt = "int(os.environ['TORCHELASTIC_RESTART_COUNT'])"
    program = f"attempt = {attempt}; pathlib.Path(f'start_{{attempt}}').touch(); sys.exit({codes}[attempt])"
    assert launched(program, max_restarts=2) == code
    assert len(list(here.glob("start_*"))) == starts


# A run whose second process fails while the first one waits for it, and whose teardown would wait too, as NCCL's may.
FAILS = """
import torch
from convmixer.distributed.processes import process_group
from convmixer.cli import main, train_command
from convmixer.errors import UserError

def run(resolved, processes):
    with process_group(processes, torch.device("cpu"), 60):
        processes.sum([1.0])
        if rank == 1:
            raise {error}
        processes.sum([1.0])

torch.distributed.destroy_process_group = lambda: time.sleep(60)
train_command._train = run
sys.exit(main.main(["train"]))
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("UserError('the cause', exit_code=2)", 2, "convmixer: the cause\n"),
        ("KeyError('the cause')", 1, "KeyError: 'the cause'\n"),
    ],
)
def test_who_fails_says_it_and_leaves_whatever_the_others_wait_for(
    error: str, code: int, said: str, launched: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    assert launched(FAILS.format(error=error)) == code
    assert time.monotonic() - begin < 50
    err = capfd.readouterr().err
    assert err.endswith(said)
    assert err.count("the cause") <= 2, "the one who failed says it, in the traceback's line of source too"
    assert "is gone or silent" not in err
    assert ("Traceback" in err) == (said[0] != "c")


@pytest.mark.parametrize("ranks", ["1", pytest.param("0, 1", marks=pytest.mark.slow)])
def test_who_fails_before_the_processes_know_each_other_says_it_too(
    ranks: str, launched: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where the machine has fewer GPUs than processes. Those that fail say it once, by the store of their agent."""
    program = f"""
from convmixer.cli import main, train_command
from convmixer.errors import UserError

def run(resolved, processes):
    if rank in ({ranks},):
        raise UserError("--device_id: 1 is not there")
    time.sleep(60)

train_command._train = run
sys.exit(main.main(["train"]))
"""
    assert launched(program) == 2
    assert capfd.readouterr().err == "convmixer: --device_id: 1 is not there\n"
