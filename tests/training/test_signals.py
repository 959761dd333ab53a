"""Stop signals: the first is noted, a second Ctrl-C quits, and the handlers of before come back."""

from __future__ import annotations

import os
import signal

import pytest

from convmixer.distributed.processes import Processes
from convmixer.signals import STOP_SIGNALS
from convmixer.training.signals import Stopped, StopRequest, StopSignals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_only_noted(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with StopSignals() as signals:
        assert signals.received is None
        send(number)
        assert signals.received == number
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            send(number)
            assert signals.received is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_second_interrupt_quits() -> None:
    with StopSignals() as signals:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert signals.received == signal.SIGINT


def test_termination_can_be_asked_for_twice() -> None:
    # Some schedulers do so every second; the save must come to its end.
    with StopSignals() as signals:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_an_evaluation_is_left_soon_after_a_word_of_another_process() -> None:
    class Others(Processes):
        heard = False
        checks = 0

        def is_posted(self, word: str) -> bool:
            type(self).checks += 1
            return self.heard

    others = Others(0, 0, 2)
    with StopSignals() as signals:
        patient, hasty = StopRequest(signals, others, seconds=3600), StopRequest(signals, others, seconds=0)
        assert [patient() for _ in range(100)] == [False] * 100
        assert Others.checks == 0, "the store is asked at most once per `seconds`"
        assert not hasty()
        Others.heard = True
        assert hasty()
        send(signal.SIGTERM)
        assert patient()


def test_exit_codes_are_those_of_the_shell() -> None:
    assert {number.name: Stopped(number).exit_code for number in STOP_SIGNALS} == {
        "SIGHUP": 129,
        "SIGINT": 130,
        "SIGUSR1": 138,
        "SIGTERM": 143,
    }
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
