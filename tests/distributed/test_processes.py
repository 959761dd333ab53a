"""What torchrun's variables say of this process, and what they may not say."""

from __future__ import annotations

import pytest
from tests.conftest import Command

from convmixer.distributed.processes import Processes
from convmixer.errors import UserError

WHOLE = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({}, Processes()),
        ({"WORLD_SIZE": "1"}, Processes()),
        ({"WORLD_SIZE": "", "RANK": ""}, Processes()),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, Processes()),
        (WHOLE, Processes(3, 1, 4)),
    ],
)
def test_whole(variables: dict[str, str], processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Processes.from_environment() == processes


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        *((WHOLE | {name: ""}, f"but {name} is not set") for name in WHOLE if name != "WORLD_SIZE"),
        ({"RANK": "1"}, "RANK: is 1, but WORLD_SIZE says 1"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK: is 1, but WORLD_SIZE says 1"),
        (WHOLE | {"WORLD_SIZE": ""}, "RANK: is 3, but WORLD_SIZE says 1"),
        (WHOLE | {"RANK": "4"}, "RANK: is 4, but WORLD_SIZE says 4"),
        (WHOLE | {"RANK": "-1"}, "RANK: '-1' is no whole number from 0 on"),
        (WHOLE | {"WORLD_SIZE": "0"}, "WORLD_SIZE: '0' is no whole number from 1 on"),
        (WHOLE | {"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is no whole number"),
        (WHOLE | {"WORLD_SIZE": "\u00b2"}, "is no whole number"),
        (WHOLE | {"LOCAL_RANK": "0.5"}, "LOCAL_RANK: '0.5' is no whole number"),
        (WHOLE | {"MASTER_PORT": "http"}, "MASTER_PORT: 'http' is no whole number"),
        (WHOLE | {"MASTER_PORT": "65536"}, "MASTER_PORT: 65536 is no port"),
        (WHOLE | {"MASTER_PORT": "0"}, "MASTER_PORT: 0 is no port"),
    ],
)
def test_half(variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        Processes.from_environment()
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_run_with_half_of_them_ends_in_a_line(convmixer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = convmixer("train")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith("convmixer: WORLD_SIZE is 2, but RANK, LOCAL_RANK, ")


def test_of_processes_that_know_each_other_only_by_their_agent_the_first_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert [Processes(rank, rank, 2).post("error") for rank in range(2)] == [True, False]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert Processes(1, 1, 2).post("error")
    assert not Processes(1, 1, 2).is_posted("error")
