"""A model in production, on this machine: `serve` under load and `bulk` over many images, beside its engine alone.

    python benchmarks/production.py MODEL --image PHOTO [--rounds 3 --seconds 10] [--flood 100000] [--output FILE]

Four rates in images per second, taken in turn so that a noisy machine treats them alike; their medians, and their
fractions of the first:
    engine               the runtime on batches in memory: what is there to be had
    engine and decoding  the same with each photo decoded, as all commands do: the most where both share the cores
    bulk                 `convmixer bulk` over links to the photo
    serve                `convmixer serve`, to which wrk (a package of Debian) sends the photo over the loopback address
With --flood so many requests are sent once more, and the memory of the server is watched.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import numpy as np
from machine import hardware, versions

from convmixer.backends.model_file import ModelFile
from convmixer.cli.serve_command import COMMAND
from convmixer.config.loading import resolve
from convmixer.config.resolved import ARGUMENT
from convmixer.data.reader import read_batches
from convmixer.data.unlabelled.located import LocatedFiles
from convmixer.machine import workers
from convmixer.model_opening import open_tuned

_BULK_SECONDS = 30
_SCRIPT = """
wrk.method = "POST"
local file = io.open("{image}", "rb")
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "image/jpeg"
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


def engine_rate(model: ModelFile, batch_size: int, seconds: float) -> float:
    """Images per second of the runtime on a batch in memory."""
    size, channels = model.preprocessing.size, model.preprocessing.channels
    crops = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, channels), np.uint8)
    model.runtime.logits(crops)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        model.runtime.logits(crops)
        count += batch_size
    return count / (time.perf_counter() - start)


def decoding_rate(model: ModelFile, batch_size: int, image: Path, seconds: float) -> float:
    """Images per second of the reader and the runtime together."""
    source = LocatedFiles([str(image)] * 1_000_000)
    start, count = time.perf_counter(), 0
    for batch in read_batches(source, model.preprocessing, batch_size, threads=workers(None)):
        model.runtime.logits(batch.images)
        count += len(batch.images)
        if time.perf_counter() - start > seconds:
            break
    return count / (time.perf_counter() - start)


def bulk_rate(model: str, batch_size: int, image: Path, images: int, execution: str) -> float:
    """Images per second of `convmixer bulk`, as it says itself: without its start."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "list.txt").write_text(f"{image}\n" * images)
        words = [
            "bulk",
            "list.txt",
            "out",
            "--checkpoint",
            model,
            f"--batch_size={batch_size}",
            f"--execution={execution}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "convmixer", *words],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"([\d.]+) img/s$", done.stderr, re.MULTILINE)
        assert found is not None, done.stderr
        return float(found[1])


@contextmanager
def server(model: str, batch_size: int, execution: str) -> Iterator[tuple[str, int]]:
    """The address of a server, and its process."""
    words = ["serve", model, "--port=0", f"--max_batch={batch_size}", f"--execution={execution}", "-q"]
    process = subprocess.Popen(
        [sys.executable, "-m", "convmixer", *words], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def load(address: str, connections: int, image: Path, seconds: float) -> dict[str, float]:
    """Requests per second, their latency in ms, and how many failed."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "post.lua")
        script.write_text(_SCRIPT.replace("{image}", str(image)))
        words = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout=60s", "-s", str(script)]
        done = subprocess.run(["wrk", *words, f"{address}predict"], capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    requests, duration, errors, p50, p99, longest = map(int, line.split()[1:])
    return {
        "rate": requests / (duration / 1e6),
        "requests": requests,
        "errors": errors,
        "p50": p50 / 1e3,
        "p99": p99 / 1e3,
        "max": longest / 1e3,
    }


def flooded(address: str, connections: int, pid: int, image: Path, requests: int) -> dict[str, Any]:
    """Memory of the server in MB after each tenth of so many requests."""
    memory, sent, errors = [resident_mb(pid)], 0, 0
    while sent < requests:
        found = load(address, connections, image, 10)
        sent, errors = sent + int(found["requests"]), errors + int(found["errors"])
        memory.append(resident_mb(pid))
    kept = [round(each, 1) for each in memory]
    return {"requests": sent, "errors": errors, "memory_mb": kept}


def resident_mb(pid: int) -> float:
    """MB of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def environment() -> dict[str, str]:
    """Of a process that imports this checkout."""
    return {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}


def measured(
    model: str, execution: str, batch_size: int, image: Path, rounds: int, seconds: float, flood: int
) -> dict[str, Any]:
    """All rates of a model, each round one of each."""
    resolved = resolve(COMMAND, {"model": model, "quiet": True, "execution": execution}, None, ARGUMENT)
    opened = open_tuned(resolved, model, None, batch_size)
    rates: dict[str, list[float]] = {name: [] for name in ("engine", "engine and decoding", "bulk", "serve")}
    latencies: list[dict[str, float]] = []
    # Of a million images the first, which the engine prepares for, are none.
    connections = 2 * batch_size  # a batch waits while another runs
    images = max(int(engine_rate(opened, batch_size, seconds) * max(seconds, _BULK_SECONDS)), batch_size)
    for number in range(rounds):
        rates["engine"].append(engine_rate(opened, batch_size, seconds))
        rates["engine and decoding"].append(decoding_rate(opened, batch_size, image, seconds))
        rates["bulk"].append(bulk_rate(model, batch_size, image, images, execution))
        with server(model, batch_size, execution) as (address, pid):
            load(address, connections, image, 2)
            latencies.append(load(address, connections, image, seconds))
            rates["serve"].append(latencies[-1]["rate"])
            flood_result = flooded(address, connections, pid, image, flood) if flood and number == rounds - 1 else None
        print({name: round(values[-1], 1) for name, values in rates.items()}, latencies[-1], file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "model": Path(model).name,
        "execution": execution,
        "batch_size": batch_size,
        "connections": connections,
        "size": opened.preprocessing.size,
        "image_bytes": image.stat().st_size,
        "rates": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "medians": {name: round(value, 2) for name, value in medians.items()},
        "of_engine": {name: round(value / medians["engine"], 3) for name, value in medians.items()},
        "latency_ms": {name: round(statistics.median(each[name] for each in latencies), 1) for name in ("p50", "p99")},
        "errors": sum(each["errors"] for each in latencies),
        "flood": flood_result,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--execution", default="fused", help="backend of all four, as the option of that name")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--flood", type=int, default=0, help="requests that are sent besides, to the first model")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    results = [
        measured(
            os.path.abspath(model),
            options.execution,
            options.batch_size,
            options.image.absolute(),
            options.rounds,
            options.seconds,
            options.flood if not number else 0,
        )
        for number, model in enumerate(options.models)
    ]
    packages = ("torch", "onnxruntime", "openvino", "starlette", "uvicorn", "uvloop", "httptools", "numpy", "pillow")
    record = {
        "date": datetime.now().isoformat(timespec="minutes"),
        "machine": hardware(),
        "versions": versions(packages),
        "models": results,
    }
    text = json.dumps(record, indent=1) + "\n"
    if options.output is not None:
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
