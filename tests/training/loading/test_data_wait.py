from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from convmixer.training.loading import data_wait
from convmixer.training.loading.data_wait import DataWait, ReadingBound, reading_bound


class Clock:
    """Time that goes on only where the test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_only_waiting_for_batches_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(data_wait, "time", clock)

    def batches() -> Iterator[int]:
        for number, seconds in enumerate((3.0, 0.5, 0.25)):
            clock.now += seconds
            yield number

    wait, seen, taken = DataWait(torch.device("cpu")), [], []
    for number in wait.measured(batches()):
        seen.append(number)
        clock.now += 10  # the training step
        taken.append(wait.take())
    assert seen == [0, 1, 2]
    assert taken == [3.0, 0.5, 0.25]
    assert wait.take() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_a_gpu_that_has_work_does_not_wait() -> None:
    device = torch.device("cuda")
    large = torch.rand(8192, 8192, device=device)

    def batches() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.05)
            yield number

    def waited(products: int) -> float:
        wait = DataWait(device)
        for _ in wait.measured(batches()):
            for _ in range(products):
                torch.mm(large, large)
        torch.cuda.synchronize()
        return wait.take()

    waited(1)
    assert waited(0) == pytest.approx(0.2, abs=0.05)
    assert waited(100) < 0.1  # all but the first batch come while it multiplies


NETWORK = "the network takes 200"


@pytest.mark.parametrize(
    ("waited", "workers", "cores", "line"),
    [
        (0.9, 4, 16, None),  # less than a tenth
        # 1000 in 10 s are 100 per second, in the 5 s without waiting 200: twice the processes.
        (5.0, 4, 16, f"4 loader processes give 100 images per second, {NETWORK}; -j 8 would do"),
        (9.0, 4, 16, "4 loader processes give 100 images per second, the network takes 1,000; -j 16 would help"),
        (5.0, 1, 2, f"1 loader process gives 100 images per second, {NETWORK}; -j 2 would do"),
        (5.0, 0, 4, f"reading in the main process gives 100 images per second, {NETWORK}; -j 2 would do"),
        (5.0, 4, 4, f"{NETWORK}; all 4 cores read; packed images (convmixer pack) or --cache ram cost less"),
    ],
)
def test_the_bound_is_named_with_what_helps(waited: float, workers: int, cores: int, line: str | None) -> None:
    found = reading_bound(1000, 10.0, waited, workers, cores)
    if line is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith("bound by reading: ")
        assert found.endswith(line)


def test_the_bound_is_named_once_and_the_start_does_not_count() -> None:
    bound = ReadingBound(workers=1, cores=8)
    assert bound.add(10, 100.0, 99.0) is None
    lines = [bound.add(40, 4.0, 2.0) for _ in range(6)]
    assert [line is not None for line in lines] == [False, False, True, False, False, False]
    assert "1 loader process gives 10 images per second, the network takes 20; -j 2 would do" in str(lines[2])
