"""Standard streams: pipes whose reader has gone, closed descriptors, a full disk, hostile text."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tests.conftest import Train
from tests.project import project_environment
from tqdm import tqdm

from convmixer.errors import UserError
from convmixer.terminal.progress import Progress
from convmixer.terminal.streams import standard_streams

LOGGER = logging.getLogger("convmixer.test")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\rnothing\u202egpj.\udcff"
HARMLESS = r"\x1b]0;owned\x07\x1b[2J\rnothing\u202egpj.\udcff"


def dead_pipe() -> io.TextIOWrapper:
    """A text stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def log(text: str) -> None:
    """As a library's warning is logged where nobody has set logging up; pytest has."""
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.LogRecord("elsewhere", logging.WARNING, "", 1, text, None, None))


def test_progress_that_nobody_reads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead_pipe() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with standard_streams(), Progress(10, "train") as progress:
            for _ in range(3):
                LOGGER.info("a line")
                progress.line("another")
                log("a warning")
                sys.stderr.flush()
            os.write(stream.fileno(), b"a library in C writes on")
        assert sys.stderr is stream


def test_a_bar_on_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    main, side = os.openpty()
    with os.fdopen(side, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with standard_streams(), Progress(10, "train") as progress:
            assert progress._bar is not None
            progress._bar.mininterval = 0
            progress.add(1)
            os.close(main)
            for _ in range(5):
                progress.add(1)
                progress.label("gone")
                LOGGER.info("a line")


def test_results_that_nobody_reads_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead_pipe() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with standard_streams(), pytest.raises(BrokenPipeError):
            print("result", flush=True)


def test_results_on_a_full_disk_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with standard_streams(), pytest.raises(UserError, match="No space left") as caught:
            print("result", flush=True)
        assert caught.value.exit_code == 1


def test_what_a_stream_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    with standard_streams():
        print("Lindwürmer.jpg", "\udce9")
    assert content.getvalue() == b"Lindw\\xfcrmer.jpg \\udce9\n"


def test_hostile_text_is_shown_escaped_whoever_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with standard_streams():
        LOGGER.info(f"skipped {HOSTILE}\nconvmixer: forged")
        log(HOSTILE)
        sys.stderr.write(warnings.formatwarning(HOSTILE, UserWarning, "file.py", 1, ""))
    first, logged, warned = err.getvalue().splitlines()[:3]
    assert first == f"skipped {HARMLESS}\\nconvmixer: forged"
    assert logged == HARMLESS
    assert warned == f"file.py:1: UserWarning: {HARMLESS}"


def test_names_of_images_in_trainings_messages(train: Train, own_toy: Path) -> None:
    name = "\x1b]0;owned\x07\x1b[2J\n\u202e.jpg"
    (own_toy / "train/red" / name).write_bytes(b"\xff\xd8\xff")
    run = train("--max_bad_share=0.2", folder=own_toy, epochs=1)
    assert set(re.findall(r"[^\n -~]", run.done.err)) == set()
    (line,) = (line for line in run.done.err.splitlines() if "skipped " in line)
    assert r"train/red/\x1b]0;owned\x07\x1b[2J\n\u202e.jpg: " in line


def test_bars_can_still_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, wrapped = io.StringIO(), io.StringIO()
    for stream in (plain, wrapped):
        monkeypatch.setattr(sys, "stderr", stream)
        with standard_streams():
            file = stream if stream is plain else sys.stderr
            with (
                tqdm(total=2, desc="outer", file=file, mininterval=0, bar_format="{desc} {n}", leave=False) as outer,
                tqdm(total=2, desc="inner", file=file, mininterval=0, bar_format="{desc} {n}", leave=False) as inner,
            ):
                outer.update()
                inner.update()
    assert "\x1b[A" in plain.getvalue()
    assert wrapped.getvalue() == plain.getvalue()


ENVIRONMENT = project_environment()
COMMAND = [sys.executable, "-m", "convmixer.cli.main"]


@pytest.mark.parametrize(("words", "code"), [(["--version"], 141), (["trian"], 2)])
def test_exit_codes_where_the_reader_has_gone(words: list[str], code: int) -> None:
    with dead_pipe() as stream:
        assert subprocess.run([*COMMAND, *words], env=ENVIRONMENT, stdout=stream, stderr=stream).returncode == code


@pytest.mark.parametrize(("words", "code"), [("--version >&-", 0), ("trian 2>&- >&- <&-", 2)])
def test_exit_codes_where_the_streams_are_closed(words: str, code: int) -> None:
    shell = " ".join(f"'{word}'" for word in COMMAND)
    done = subprocess.run(["bash", "-c", f"{shell} {words}"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout + done.stderr == ""


def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; from convmixer.terminal.streams import standard_streams\n"
        "with standard_streams():\n"
        f"    file = open({str(tmp_path / 'checkpoint')!r}, 'w')\n"
        "    os.write(2, b'a library writes to stderr'); print('so does Python', file=sys.stderr)\n"
        "    file.write('content'); file.close()\n"
    )
    shell = f"exec '{sys.executable}' -c \"$CODE\" 2>&- >&- <&-"
    assert subprocess.run(["bash", "-c", shell], env={**ENVIRONMENT, "CODE": code}).returncode == 0
    assert (tmp_path / "checkpoint").read_text() == "content"
