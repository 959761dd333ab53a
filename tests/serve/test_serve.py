"""`serve`, with real requests: answers, wrong ones, slow ones, too many, its end, and what it tells of itself."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_onnx_commands import foreign_model
from tests.conftest import Command
from tests.serve.served import Served, children, resident_mb, serving, wait_until

import convmixer

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")


def png(colour: tuple[int, int, int], size: tuple[int, int] = (14, 11), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


RED, GREEN, BLUE = png((200, 20, 20)), png((20, 200, 20), kind="JPEG"), png((20, 20, 200), kind="BMP")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One of an ONNX file whose classes are red, green and blue, by number."""
    path = foreign_model(tmp_path_factory.mktemp("serve") / "colours.onnx", "float[N, 3, 10, 10] pixels")
    with serving(path, "--max_mb=0.5", "--max_pixels=1000000", "--timeout=1", "--queue=8") as served:
        yield served


def test_a_raw_image(server: Served) -> None:
    answer = server.ask("/predict", GREEN, Content_Type="image/jpeg")
    assert answer.status == 200
    (found,) = answer.json["predictions"]
    assert sorted(found) == ["index", "name", "probability", "topk"]
    assert (found["index"], found["name"]) == (1, "1")
    # By hand: logits are the normalised means.
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    logits = (np.array([20, 200, 20]) / 255 - mean) / std
    odds = np.exp(logits) / np.exp(logits).sum()
    assert [each["probability"] for each in found["topk"]] == pytest.approx(sorted(odds)[::-1], abs=0.02)


def test_a_form_of_several_in_their_order(server: Served) -> None:
    answer = server.form("/predict?topk=1", c=BLUE, a=RED, b=GREEN, e=b"no image", d=RED)
    assert answer.status == 200
    found = answer.json["predictions"]
    assert [each.get("index") for each in found] == [2, 0, 1, None, 0]
    assert found[3] == {"error": "a text, no image", "status": 415}
    assert all(len(each["topk"]) == 1 for each in found if "topk" in each)


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"", {"Content_Type": "image/png"}, 400, "no image in the request"),
        (b"plain words", {"Content_Type": "image/png"}, 415, "a text, no image"),
        (RED, {"Content_Type": "application/json"}, 415, "application/json is not read"),
        (RED[:-30], {"Content_Type": "image/png"}, 400, ""),
        (png((9, 9, 9), (1200, 1200)), {"Content_Type": "image/png"}, 413, "1200 x 1200 pixels, more than the limit"),
        (bytes(600_000), {"Content_Type": "image/png"}, 413, "the request is larger than 0.5 MB"),
        (b"--x\r\n", {"Content_Type": "multipart/form-data"}, 400, "a malformed form"),
        (b"rubbish", {"Content_Type": "multipart/form-data; boundary=x"}, 400, "a malformed form"),
        (b"--x--\r\n", {"Content_Type": "multipart/form-data; boundary=x"}, 400, "no image in the request"),
        (RED, {"Content_Type": "image/png", "Sec_Fetch_Site": "cross-site"}, 403, "pages of other sites"),
    ],
)
def test_requests_that_are_refused(
    server: Served, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = server.ask("/predict", body, **headers)
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    assert reason in answer.json["error"]
    assert "/" not in answer.json["error"].replace("application/json", "").replace("multipart/form-data", "")
    assert server.ask("/predict", RED, Content_Type="image/png").status == 200


def test_paths_methods_and_numbers(server: Served) -> None:
    assert server.ask("/nothing").status == 404
    assert server.ask("/predict").status == 405
    assert server.ask("/predict?topk=0", RED).status == server.ask("/predict?topk=x", RED).status == 400
    # The content decides; a type that is left out is none.
    assert server.ask("/predict?topk=100", RED).json["predictions"][0]["index"] == 0


def raw(server: Served, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back when these bytes are sent, with pauses between them."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        found = b""
        while part := connection.recv(65536):
            found += part
            head, mark, body = found.partition(b"\r\n\r\n")
            if mark and f"content-length: {len(body)}".encode() in head.lower():
                break
        return found


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def test_a_client_that_is_too_slow(server: Served) -> None:
    start = time.monotonic()
    answer = raw(server, HEAD + b"Content-Length: 100\r\n\r\n\x89PNG")
    assert b" 408 " in answer.splitlines()[0]
    assert 0.8 < time.monotonic() - start < 10
    assert server.ask("/health").status == 200


@pytest.mark.slow
def test_a_head_that_does_not_come(server: Served) -> None:
    for sent in (b"", b"POST /predict HT", b"GET /health HTTP/1.1\r\nHost: local"):
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(sent)
            assert b" 408 " in connection.recv(65536)
            assert connection.recv(65536) == b""
        assert 0.8 < time.monotonic() - start < 10


def test_a_body_without_a_length_that_does_not_end(server: Served) -> None:
    part = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[part] * 8)
    assert b" 413 " in answer.splitlines()[0]


def test_clients_that_leave_in_the_middle(server: Served) -> None:
    for count in (10, 300):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n" + bytes(count))
    assert b" 400 " in raw(server, b"\x16\x03\x01 this is no HTTP\r\n\r\n").splitlines()[0]
    assert server.ask("/predict", RED, Content_Type="image/png").status == 200


def test_a_page_of_elsewhere_that_calls_itself_this_machine(server: Served) -> None:
    assert server.ask("/model", Host="evil.example").status == 400
    assert server.ask("/model", Host="localhost:1234").status == 200


def test_too_many_at_once(server: Served) -> None:
    """More images than may wait, in one request and in many; what was taken in is answered, and then all are."""
    answer = server.form("/predict", **{f"f{number}": RED for number in range(9)})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    large = png((1, 2, 3), (999, 999))
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(lambda _: server.ask("/predict", large, Content_Type="image/png").status, range(96)))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 8
    assert server.ask("/predict", RED, Content_Type="image/png").status == 200


def test_what_it_tells_of_itself(server: Served) -> None:
    about = server.ask("/model").json
    assert (about["classes"], about["explains"], about["max_pixels"]) == (["0", "1", "2"], False, 1_000_000)
    assert "colours.onnx" not in server.ask("/model").body.decode()
    assert server.ask("/explain", RED).status == 501
    assert (server.ask("/health").status, server.ask("/ready").status) == (200, 200)
    before = metric(server, "convmixer_images_total")
    server.form("/predict", a=RED, b=BLUE)
    assert metric(server, "convmixer_images_total") == before + 2
    assert metric(server, 'convmixer_requests_total{path="/predict",status="200"}') >= 1
    document = server.ask("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert {"/predict", "/explain", "/health", "/ready", "/metrics", "/model"} == set(document["paths"])


def metric(server: Served, name: str) -> float:
    lines = server.ask("/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).rpartition(" ")[2])


@pytest.mark.slow
def test_what_all_requests_hold_is_bounded(tmp_path: Path) -> None:
    """Many large requests at once: the memory of the server grows by no more than a few of them."""
    path = foreign_model(tmp_path / "colours.onnx", "float[N, 3, 10, 10] pixels")
    with serving(path, "--max_mb=300", "--timeout=20") as server:
        before, peak = resident_mb(server.process.pid), 0.0
        body = b"\x89PNG" + bytes(200_000_000)
        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(status_of, server, body) for _ in range(8)]
            while not all(each.done() for each in sent):
                peak = max(peak, resident_mb(server.process.pid) - before)
                time.sleep(0.02)
        statuses = [each.result() for each in sent]
        assert set(statuses) <= {415, 503, 0}
        assert len([status for status in statuses if status != 415]) >= 4
        assert peak < 8 * 200
        assert server.ask("/predict", RED, Content_Type="image/png").status == 200


def status_of(server: Served, body: bytes) -> int:
    """Of an answer; 0 where the server closed the connection before all was sent."""
    try:
        return server.ask("/predict", body, Content_Type="image/png").status
    except ConnectionError:
        return 0


def test_the_interface_is_valid_openapi(server: Served) -> None:
    validate = pytest.importorskip("openapi_spec_validator").validate
    validate(server.ask("/openapi.json").json)


@pytest.mark.slow
def test_a_token(weights: Path) -> None:
    with serving(weights, "-v", CONVMIXER_TOKEN="open sesame") as server:
        for words in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "open sesame"}):
            answer = server.ask("/predict", RED, Content_Type="image/png", **words)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert server.ask("/metrics").status == server.ask("/model").status == 401
        assert server.ask("/health").status == server.ask("/").status == 200
        answer = server.ask("/predict", RED, Content_Type="image/png", Authorization="Bearer open sesame")
        assert answer.status == 200
        code, err = server.stop()
    assert (code, "sesame" in err, "Traceback" in err) == (143, False, False)
    assert "POST /predict 200 " in err


@pytest.mark.slow
def test_answers_and_maps_of_weights_are_those_of_python(weights: Path, own_toy: Path, tmp_path: Path) -> None:
    files = sorted(own_toy.glob("val/*/*"))[:5]
    expected = convmixer.predict(weights, list(files))
    with serving(weights) as server:
        found = server.form("/predict", **{path.stem + str(i): path.read_bytes() for i, path in enumerate(files)}).json
        for each, prediction in zip(found["predictions"], expected, strict=True):
            assert each["name"] == prediction.name
            assert each["probability"] == pytest.approx(prediction.probability, abs=1e-4)
        answer = server.ask("/explain?index=2", files[0].read_bytes(), Content_Type="image/png")
        size = convmixer.load_model(weights).preprocessing.size
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.body)).size == (size, size)
        assert server.ask("/explain?index=3", RED).status == 400
        assert server.form("/explain", a=RED, b=RED).status == 400


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_asked_before_the_end_is_answered(weights: Path, number: signal.Signals) -> None:
    with serving(weights, "--queue=100000") as server:
        large, statuses = png((1, 2, 3), (3000, 2000), "JPEG"), []

        def ask() -> None:
            statuses.append(server.ask("/predict", large, Content_Type="image/jpeg").status)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        wait_until(lambda: statuses)
        code, err = server.stop(number)
        for thread in threads:
            thread.join()
    assert code == 128 + number, err
    assert statuses == [200] * 12
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_worker_that_is_killed(weights: Path) -> None:
    """Of two, while requests come: connections of the dead one break, the others are answered, then there are two."""
    with serving(weights, "--workers=2") as server:
        wait_until(lambda: len(workers(server)) == 2 and answers(server), 60)
        first, second = workers(server)
        os.kill(first, signal.SIGKILL)
        statuses = []
        for _ in range(50):
            try:
                statuses.append(server.ask("/predict", RED, Content_Type="image/png").status)
            except (ConnectionError, OSError):
                statuses.append(0)
        assert statuses.count(200) >= 45
        wait_until(lambda: len(workers(server)) == 2 and first not in workers(server), 60)
        assert second in workers(server)
        assert server.ask("/predict", RED, Content_Type="image/png").status == 200
        # What both have counted, in either's answer.
        assert metric(server, "convmixer_images_total") >= 45
        code, err = server.stop()
    assert code == 143, err
    assert not [pid for pid in (first, second) if Path(f"/proc/{pid}").exists()]


def workers(server: Served) -> list[int]:
    """Python's own resource tracker is no worker."""
    return [pid for pid in children(server.process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def answers(server: Served) -> bool:
    try:
        return server.ask("/ready").status == 200
    except OSError:
        return False


def test_wrong_use(convmixer: Command, here: Path, weights: Path) -> None:
    done = convmixer("serve")
    assert (done.code, done.error) == (2, "MODEL: weights or a model file are needed, as in convmixer serve runs/best")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = convmixer("serve", weights, f"--port={port}")
    assert done.code == 2
    assert f"--host, --port: 127.0.0.1:{port} cannot be listened at: Address already in use" in done.error
    done = convmixer("serve", weights, "--host=203.0.113.7", "--port=0")  # of nobody
    assert (done.code, done.error.endswith("; --host is an address of this machine")) == (2, True), done.error
    (here / "words.onnx").write_text("no model")
    done = convmixer("serve", "words.onnx", "--port=0")
    assert done.code == 2
    assert "words.onnx" in done.error
    assert json.dumps(done.out) == '""'
