"""Stop signals: the first is noted, a second Ctrl-C quits, and the handlers of before come back."""

from __future__ import annotations

import os
import signal

import pytest

from convmixer.train.stopping import Stopped, StopSignals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_only_noted(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as signals:
        assert signals.received is None
        send(number)
        assert signals.received == number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


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


def test_exit_codes_are_those_of_the_shell() -> None:
    assert [Stopped(number).exit_code for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
