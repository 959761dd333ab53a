"""Row 73 of the faults: small ONNX files that would run for ever, or fill any memory, end in a line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from tests.project import ROOT

from convmixer.backends.memory_limit import memory_growth
from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.onnx import session
from convmixer.backends.onnx.graph import read_graph
from convmixer.backends.onnx.opening import open_onnx
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError

FOREVER = 2**63 - 1


def model(nodes: str, values: str = "", functions: str = "") -> bytes:
    """Answers [n, 3] with the means of `big`, one number or three, or of the image where there is none of that name."""
    last = "y = Add(means, big)" if "big =" in nodes else ""
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17, "f": 1]>
        hostile (float[n, 3, 8, 8] x) => (float[n, 3] y) <{values}>
        {{
            means = ReduceMean<axes = [2, 3], keepdims = 0>(x)
            {nodes}
            {last}
        }}
        {functions}
    """).SerializeToString()


def max_of(maker: str, values: str = "") -> bytes:
    return model(f"{maker}\nbig = ReduceMax<keepdims = 0>(made)", values)


def doubled(first: str) -> bytes:
    """A vector `c0` joined to itself 31 times over."""
    joins = "\n".join(f"c{i + 1} = Concat<axis = 0>(c{i}, c{i})" for i in range(31))
    return model(f"{first}\n{joins}\nbig = ReduceMax<keepdims = 0>(c31)", "int64[1] one = {1}")


def calls(count: int, *, cycle: bool = False) -> bytes:
    """Functions of which each calls the one before twice; `cycle`: the first calls itself."""
    body = '<domain: "f", opset_import: ["": 17, "f": 1]> f{} (a) => (b) {{ c = {inner}(a) b = {inner}(c) }}'
    inner = ["f.f0" if cycle else "Abs", *(f"f.f{i}" for i in range(count - 1))]
    texts = "\n".join(body.format(number, inner=name) for number, name in enumerate(inner))
    return model(f"y = f.f{count - 1}(means)", functions=texts)


def loop(start: str, answer: str) -> bytes:
    body = "(int64 i, bool go, float[a] v) => (bool still, float[a] w) { still = Identity(go) w = Add(v, v) }"
    return model(
        f"looped = Loop(times, true, {start}) <body = b {body}>\n{answer}",
        f"int64 times = {{{FOREVER}}}, bool true = {{1}}, float[1] z = {{1}}",
    )


def scan() -> bytes:
    """Within a branch of an If."""
    body = "body = b (float[3] s, float[3] v) => (float[3] t, float[3] w) { t = Add(s, v) w = Identity(v) }"
    inner = f"{{ last, all = Scan(zeros, means) <num_scan_inputs = 1, {body}> }}"
    branches = ", ".join(f"{name}_branch = {name} () => (float[n, 3] all) {inner}" for name in ("then", "else"))
    return model(f"y = If(true) <{branches}>", "bool true = {1}, float[3] zeros = {0, 0, 0}")


def many_nodes(count: int) -> bytes:
    """A second graph, of empty nodes, which a reader joins to the first."""
    graph, length = b"\x0a\x00" * count, 2 * count
    size = bytes(((length >> shift) & 127) | (128 if shift < 21 else 0) for shift in (0, 7, 14, 21))
    return model("y = Identity(means)") + b"\x3a" + size + graph


SIZES = "int64[2] s = {50000, 40000}"
HOSTILE = {
    "a loop over the image": loop("means", "y = Identity(looped)"),
    "a loop over a constant": loop("z", "big = Identity(looped)"),
    "a loop in a function": model(
        "y = f.f(means)",
        functions='<domain: "f", opset_import: ["": 17]> f (a) => (b) { t = Constant<value = int64 {9}>()'
        " c = Constant<value = bool {1}>() b = Loop(t, c, a) <body = b (int64 i, bool g, float[n] v) =>"
        " (bool h, float[n] w) { h = Identity(g) w = Abs(v) }> }",
    ),
    "a scan": scan(),
    "a constant of 2e9": max_of("made = ConstantOfShape(s)", "int64[1] s = {2000000000}"),
    "expand": max_of("made = Expand(one, s)", f"{SIZES}, float[1] one = {{1}}"),
    "tile": max_of("made = Tile(means, s)", SIZES),
    "range": max_of("made = Range(a, b, c)", "float a = {0}, float b = {2000000000}, float c = {1}"),
    "random": max_of("made = RandomNormal<shape = [2000000000]>()"),
    "resize": max_of("made = Resize(x, , s)", "float[4] s = {1, 1, 4000, 4000}"),
    "pad": max_of("made = Pad(x, p)", "int64[8] p = {0, 0, 20000, 20000, 0, 0, 0, 0}"),
    "convolution": max_of("made = Conv<pads = [15000, 15000, 15000, 15000]>(x, w)", "float[1, 3, 1, 1] w = {1, 1, 1}"),
    "broadcast": max_of(
        "v = ConstantOfShape(s)\nw = Reshape(v, u)\nmade = Add(v, w)", "int64[1] s = {45000}, int64[2] u = {-1, 1}"
    ),
    "doubled constants": doubled("c0 = Constant<value = float[1] {1}>()"),
    "doubled pixels": doubled("m = ReduceMax<keepdims = 0>(x)\nc0 = Reshape(m, one)"),
    "functions of functions": calls(40),
    "a function that calls itself": calls(1, cycle=True),
    "many nodes": many_nodes(1_000_000),
}
EXPECTED = {
    "a loop over the image": "holds a Loop",
    "a loop over a constant": "holds a Loop",
    "a loop in a function": "holds a Loop",
    "a scan": "holds a Scan",
    "functions of functions": "stand for more than 100,000 operators",
    "a function that calls itself": "stand for more than 100,000 operators",
    "many nodes": "holds more than 100,000 operators",
}


def opened(path: Path) -> ModelFile:
    return open_onnx(
        str(path), lambda record, channels, size=None: record or Preprocessing(size=size or 8), DeviceRequest("CPU")
    )


RUN_ALL = """
import json, sys, time
from pathlib import Path
from tests.fuzz.guard import peak
from tests.backends.onnx.test_hostile import opened
from convmixer.errors import UserError
found = []
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.monotonic()
    try:
        opened(path)
        message = "opened"
    except UserError as error:
        message = f"{error.exit_code} {error}"
    found.append((path.stem, message, time.monotonic() - start))
print(json.dumps([found, peak()]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[str, float]], int]:
    """Of each file the message and the seconds, and the largest memory of the process that tried them all."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in HOSTILE.items():
        (folder / f"{name}.onnx").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found, peak = json.loads(done.stdout)
    return {name: (message, seconds) for name, message, seconds in found}, peak


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_line(name: str, answers: tuple[dict[str, tuple[str, float]], int]) -> None:
    message, seconds = answers[0][name]
    assert message.startswith("2 ")
    assert EXPECTED.get(name, "GiB of memory for an image; this is refused") in message
    assert len(message.splitlines()) == 1
    assert seconds < 10


def test_no_hostile_file_takes_a_gigabyte(answers: tuple[dict[str, tuple[str, float]], int]) -> None:
    assert answers[1] < 10**9


def test_an_endless_computation_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = "\n".join(f"c{i + 1} = MatMul(c{i}, c0)" for i in range(3000))
    nodes = f"c0 = ConstantOfShape(s)\n{products}\nbig = ReduceMax<keepdims = 0>(c3000)"
    (tmp_path / "m.onnx").write_bytes(model(nodes, "int64[2] s = {1200, 1200}"))
    monkeypatch.setattr(session, "SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"m\.onnx: does not answer an image within 0 s") as refusal:
        opened(tmp_path / "m.onnx")
    assert refusal.value.exit_code == 2
    assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    "nodes",
    [
        "y = If(true) <then_branch = t () => (float[n, 3] a) { a = Identity(means) },"
        " else_branch = e () => (float[n, 3] b) { b = Abs(means) }>",
        "y = f.f1(means)",
        "shape = Shape(means)\nzeros = ConstantOfShape(shape)\ny = Add(means, zeros)",
        "half = Mul(one, one)\ny = Mul(means, half)",
    ],
)
def test_an_honest_file_with_a_branch_functions_or_constants(tmp_path: Path, nodes: str) -> None:
    functions = (
        '<domain: "f", opset_import: ["": 17]> f0 (a) => (b) { b = Identity(a) }\n'
        '<domain: "f", opset_import: ["": 17, "f": 1]> f1 (a) => (b) { c = f.f0(a) b = f.f0(c) }'
    )
    content = model(nodes, "bool true = {1}, float[1] one = {1}", functions)
    (tmp_path / "m.onnx").write_bytes(content)
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    found = opened(tmp_path / "m.onnx").runtime.logits(images)
    np.testing.assert_allclose(found, Preprocessing().normalise(images).mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_the_bound_of_memory_ends_with_its_block() -> None:
    with pytest.raises(MemoryError), memory_growth(2**26):
        np.ones(2**27, np.uint8)
    assert np.ones(2**27, np.uint8)[-1] == 1


def damaged() -> Iterator[bytes]:
    """A small file cut and changed at every third byte."""
    content = model("y = Softmax(means)")
    for position in range(0, len(content), 3):
        yield content[:position]
        yield content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path, refused = tmp_path / "m.onnx", 0
    for content in damaged():
        path.write_bytes(content)
        try:
            read_graph(path)
        except UserError:
            refused += 1
    assert refused > 40


def test_a_last_operator_is_found_behind_what_passes_it_on(tmp_path: Path) -> None:
    nodes = "p = Sigmoid(means)\nq = Identity(p)\nr = Flatten(q)\ny = Cast<to = 1>(r)"
    (tmp_path / "m.onnx").write_bytes(model(nodes))
    assert read_graph(tmp_path / "m.onnx").last_operator("y") == "Sigmoid"
    assert read_graph(tmp_path / "m.onnx").last_operator("means") == "ReduceMean"
    assert read_graph(tmp_path / "m.onnx").last_operator("no such") is None
