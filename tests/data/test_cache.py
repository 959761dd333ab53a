from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.project import run_python

from convmixer.data.cache import CachedSource, SharedArena
from convmixer.data.folders import Files
from convmixer.data.limits import BadImage


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def test_what_was_kept_comes_back_and_nothing_else() -> None:
    arena = SharedArena(5, 10_000, writers=2)
    pixels, grey, file = noise(7, 9, 3), noise(3, 2, 1), b"an encoded file"
    images: list[tuple[int, np.ndarray | bytes]] = [(0, pixels), (4, file), (2, grey)]
    for writer, (index, image) in enumerate(images):
        assert arena.get(index) is None
        assert arena.put(index, image, writer % 2)
    found = arena.get(0)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, pixels)
    assert not found.flags.writeable
    assert arena.get(4) == file
    np.testing.assert_array_equal(arena.get(2), grey)
    assert (arena.get(1), arena.get(3), arena.kept) == (None, None, 3)


def test_a_writer_has_its_part_and_no_more() -> None:
    arena = SharedArena(9, 640, writers=2)  # 320 bytes each, in steps of 64
    assert arena.put(0, bytes(100), 0)  # 128 with what is left of its last step
    assert arena.put(1, bytes(192), 0)
    assert not arena.put(2, bytes(1), 0)
    assert arena.put(2, bytes(320), 1)
    assert not arena.put(3, bytes(1), 1)
    assert [arena.get(index) is not None for index in range(4)] == [True, True, True, False]


def test_a_process_in_another_ones_place_goes_on_after_it() -> None:
    arena = SharedArena(3, 10_000, writers=2)
    for index in range(3):  # each copy is what a new process has
        pickle.loads(pickle.dumps(arena)).put(index, noise(4, 4 + index, 3), 1)
    for index in range(3):
        np.testing.assert_array_equal(arena.get(index), noise(4, 4 + index, 3))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_share_it(method: str) -> None:
    arena = SharedArena(3, 10_000, writers=2)
    arena.put(0, noise(4, 4, 3), 0)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_put_what_is_there_turned, args=(arena,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    np.testing.assert_array_equal(arena.get(1), noise(4, 4, 3)[::-1])


def _put_what_is_there_turned(arena: SharedArena) -> None:
    found = arena.get(0)
    assert isinstance(found, np.ndarray)
    arena.put(1, np.ascontiguousarray(found[::-1]), 1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_killed_while_it_writes_leaves_whole_images_only() -> None:
    for _ in range(5):
        arena = SharedArena(5000, 64 << 20, writers=2)
        process = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(arena,), daemon=True)
        process.start()
        while arena.kept < 20:
            assert process.is_alive()
        assert process.pid is not None
        assert arena.kept < 4999
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for index in range(arena.count):
            image = arena.get(index)
            assert image is None or (np.asarray(image) == index % 256).all()
        assert arena.put(0, noise(2, 2, 3), 1)  # nobody waits for who was killed


def _write_for_ever(arena: SharedArena) -> None:
    for index in range(1, arena.count):
        arena.put(index, np.full((60, 60, 3), index % 256, np.uint8), 0)
        if index == arena.count - 1:
            signal.pause()


def test_memory_is_taken_as_it_is_needed_and_given_back() -> None:
    script = (
        "import gc, re; from pathlib import Path; import numpy as np\n"
        "from convmixer.data.cache import SharedArena\n"
        "def shared(): return int(re.search(r'RssShmem:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = shared(); arena = SharedArena(100, 8 << 30, writers=4); empty = shared()\n"
        "for i in range(100): arena.put(i, np.full((512, 1024, 1), i, np.uint8), i % 4)\n"
        "full = shared(); del arena; gc.collect()\n"
        "print(empty - before, full - before, shared() - before)"
    )
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    empty, full, after = map(int, done.stdout.split())  # kB
    assert empty < 1000
    assert 51_000 < full < 53_000
    assert after < 1000


def test_a_cached_source_reads_each_image_once_and_bad_ones_every_time(tmp_path: Path) -> None:
    class Counted(Files):
        reads: ClassVar[list[int]] = []

        def read(self, index: int) -> bytes:
            self.reads.append(index)
            return b"%d" % index

    def prepare(read: bytes | np.ndarray) -> bytes | np.ndarray:
        if read == b"1":
            raise BadImage("broken")
        return np.full((1, 2, 3), int(bytes(read)), np.uint8)

    files = Counted([tmp_path / str(index) for index in range(3)], [0, 1, 0])
    source = CachedSource(files, SharedArena(3, 1000, writers=1), prepare)
    for _ in range(2):
        np.testing.assert_array_equal(source.read(0), np.zeros((1, 2, 3)))
        with pytest.raises(BadImage):
            source.read(1)
        np.testing.assert_array_equal(source.read(2), np.full((1, 2, 3), 2))
    assert files.reads == [0, 1, 2, 1]
    assert (len(source), source.name(2), source.labels.tolist()) == (3, files.name(2), [0, 1, 0])
    copy = pickle.loads(pickle.dumps(source.arena))
    np.testing.assert_array_equal(copy.get(2), source.read(2))
