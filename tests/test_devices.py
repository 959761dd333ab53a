"""The device that is chosen is the process's current one: a CPU that is told of GPUs shows who asks for which."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import Command, Run, ToyOptions

from convmixer.devices import choose_device
from convmixer.errors import UserError
from convmixer.training import non_finite


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Three GPUs, of which `set_device` is all that works; those that were made the current one."""
    found: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    return found


@pytest.mark.parametrize("index", [0, 2])
def test_a_gpu_is_made_the_current_one(index: int, chosen: list[torch.device]) -> None:
    device, remark = choose_device(None, index, is_required=False)
    assert (device, remark) == (torch.device("cuda", index), None)
    assert chosen == [device]


def test_what_is_no_gpu_is_left(chosen: list[torch.device]) -> None:
    assert choose_device("CPU", 2, is_required=True)[0] == torch.device("cpu")
    with pytest.raises(UserError, match=r"--device_id: 3 is not there; this machine has 3 GPU\(s\)"):
        choose_device("GPU", 3, is_required=True)
    assert chosen == []


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("command", ["train", "eval", "infer"])
def test_every_command_that_uses_a_gpu_sets_it(
    command: str,
    convmixer: Command,
    toy: Path,
    toy_run: Run,
    toy_options: ToyOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(device: torch.device) -> None:
        raise UserError(f"set {device}")

    monkeypatch.setattr(torch.cuda, "set_device", stop)
    words = {
        "train": toy_options(toy),
        "eval": [f"--data_url={toy}", f"--pretrained={toy_run.best}", "-j0"],
        "infer": [str(toy / "val"), "--recursive", f"--checkpoint={toy_run.best}"],
    }[command]
    assert convmixer(command, *words, "--device_id=1").error == "set cuda:1"


def test_the_finite_check_waits_on_the_stream_that_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on that of the current device, which a caller may have set otherwise."""
    recorded: list[object] = []

    def event(*, blocking: bool) -> SimpleNamespace:
        def record(stream: object = "of the current device") -> None:
            recorded.append(stream)

        assert blocking
        return SimpleNamespace(record=record)

    def stream_of(device: object = None) -> str:
        return f"of {device}"

    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "current_stream", stream_of)
    device = torch.device("cuda", 1)
    non_finite._arrival(SimpleNamespace(is_cuda=True, device=device))  # type: ignore[arg-type]
    assert recorded == ["of cuda:1"]
    assert non_finite._arrival(torch.zeros(2)) is None
