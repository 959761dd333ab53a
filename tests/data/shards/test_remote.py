"""Shards at an address: a server on this machine, that gives parts of files, fails, or gives none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.data.shards.tars import png, write_shards
from tests.range_server import Behaviour, range_server

from convmixer.data import retrying, storage
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.limits import BadImage
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader, read_batches
from convmixer.data.shards import chunks
from convmixer.data.shards.order import SequentialOrder
from convmixer.data.shards.source import ShardSource, open_shards
from convmixer.errors import UserError
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.loading.worker_loader import WorkerLoader

# fsspec reads http:// by them; they come with the extra `remote`.
pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Behaviour]]:
    write_shards(tmp_path / "data/train", "a-", (7, 1, 30, 12))
    monkeypatch.setattr(retrying, "RETRY_DELAYS", (0.01, 0.01))
    with range_server(tmp_path / "data") as server:
        yield server


def opened(url: str, split: str = "train") -> ShardSource:
    return open_shards(url, split, "--train_dir", None)


@pytest.mark.parametrize(
    "split",
    ["train", "train/a-{000000..000003}.tar", "train/*.tar", "URL/train/a-{000000..000003}.tar", "train/a-000002.tar"],
)
def test_the_same_as_from_a_disk(served: tuple[str, Behaviour], tmp_path: Path, split: str) -> None:
    url, _ = served
    local = open_shards(str(tmp_path / "data"), split.replace("URL/", ""), "--train_dir", None)
    source = opened(url, split.replace("URL", url))
    assert len(source) == len(local) > 0
    assert source.labels.tolist() == local.labels.tolist()
    assert [source.read(i) for i in range(len(source))] == [local.read(i) for i in range(len(source))]
    assert source.name(0).startswith(f"{url}/train/a-00000")


def test_the_index_is_made_once(served: tuple[str, Behaviour]) -> None:
    url, behaviour = served
    opened(url)
    assert sum(count for _, _, count in behaviour.asked) > 0
    behaviour.asked.clear()
    opened(url)
    assert behaviour.asked == []


def test_in_order_it_asks_seldom(served: tuple[str, Behaviour], monkeypatch: pytest.MonkeyPatch) -> None:
    url, behaviour = served
    source = opened(url)
    monkeypatch.setattr(chunks, "CHUNK", 10_000)
    behaviour.asked.clear()
    batches = list(read_batches(source, Preprocessing(size=8), 8, threads=4))
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(50))
    shard_bytes = source.index.sizes.tolist()
    assert len(behaviour.asked) <= sum(size // 10_000 + 1 for size in shard_bytes)
    assert len({each[:2] for each in behaviour.asked}) == len(behaviour.asked)  # none twice


def test_many_threads(served: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 5_000)
    url, _ = served
    source, wrong = opened(url), list[int]()

    def read(step: int) -> None:
        wrong.extend(i for i in ((k * step) % 50 for k in range(100)) if source.read(i) != png(i))

    threads = [threading.Thread(target=read, args=(step,)) for step in (1, 7, 11, 49)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def train_batches(source: ShardSource, workers: int, steps: range = range(10)) -> list[TrainBatch]:
    reader = TrainReader(source, Preprocessing(size=8), seed=3)
    sampler = BatchSampler(50, 4, 3, 2, 1, SequentialOrder(source.index, 10))
    loader = WorkerLoader(reader, sampler, rank=1, workers=workers, pin=False, timeout=60)
    return [batch for (batch,) in loader.batches(steps)]


def contents(batches: list[TrainBatch]) -> list[object]:
    return [(b.images.tolist(), b.labels.tolist(), b.indices.tolist(), b.epoch, b.bad) for b in batches]


def test_any_number_of_loader_processes(served: tuple[str, Behaviour], tmp_path: Path) -> None:
    """And from any step on; one image cannot be decoded, so that another, which is not read ahead, takes its place."""
    url, _ = served
    source = opened(url)
    at = int(source.index.samples.offset[20])
    with (tmp_path / "data/train/a-000002.tar").open("r+b") as file:
        file.seek(at)
        file.write(bytes(40))
    wanted = contents(train_batches(source, 0))
    assert any(batch[-1] for batch in wanted)  # type: ignore[index]
    for workers in (1, 3):
        assert contents(train_batches(source, workers)) == wanted
    assert contents(train_batches(source, 1, range(7, 10))) == wanted[7:]


def test_a_server_that_fails_now_and_then(served: tuple[str, Behaviour]) -> None:
    url, behaviour = served
    source = opened(url)
    wanted = contents(train_batches(source, 0))
    behaviour.fails = 2
    assert contents(train_batches(source, 0)) == wanted
    assert behaviour.fails <= 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_server_that_dies(served: tuple[str, Behaviour], workers: int) -> None:
    url, behaviour = served
    source = opened(url)
    behaviour.dead_after = len(behaviour.asked)
    with pytest.raises(UserError, match=r"a-00000\d\.tar: cannot be read: .*503") as error:
        train_batches(source, workers)
    assert error.value.exit_code == 1
    with pytest.raises(UserError, match="cannot be read"):
        source.read(0)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "RETRY_DELAYS", (0.01,))
    with range_server(tmp_path) as (url, _):
        pass
    with pytest.raises(UserError, match=r"x\.tar: cannot be read: "):
        opened(url, "x.tar")


def test_a_server_without_ranges(served: tuple[str, Behaviour]) -> None:
    url, behaviour = served
    behaviour.ranges = False
    source = opened(url)  # each shard is one request, of all that it has
    with pytest.raises(UserError, match="cannot give a part of a file"):
        storage.read_range(source.index.shards[2], 512, 1024)


def test_what_is_not_there(served: tuple[str, Behaviour]) -> None:
    url, _ = served
    with pytest.raises(UserError, match="there are no shards"):
        opened(url, "val")
    with pytest.raises(UserError, match=r"a-00000[4-9]\.tar: there is no such file"):
        opened(url, "train/a-{000000..000009}.tar")
    with pytest.raises(UserError, match=r"odd://x/y\.tar: Protocol not known"):
        opened("odd://x", "y.tar")


def test_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UserError, match=r"pip install 'convmixer\[remote\]'"):
        opened("http://127.0.0.1:9", "y.tar")


def test_an_image_that_is_too_large(served: tuple[str, Behaviour], monkeypatch: pytest.MonkeyPatch) -> None:
    url, _ = served
    source = opened(url)
    monkeypatch.setattr("convmixer.data.shards.source.MAX_BYTES", 10)
    with pytest.raises(BadImage, match="larger than"):
        source.read(0)
