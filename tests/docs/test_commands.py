"""Every command line of README and docs runs, one document after the other, on a toy folder called `flowers`.

Training is made small by options that are put after those of the document. What installs or asks for other machines
is listed here with the reason, and nothing else is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import draw_images
from tests.project import ROOT, project_environment

DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)

# A command that starts so is not run here: why.
ELSEWHERE = {
    "make demo": "run by hand on a fresh clone; its three commands are run by test_demo",
    "make test": "is this suite",
    "make ": "installs an environment of its own",
    "pip install": "the wheel's own test installs the package",
    "uv pip install": "tests/packaging/test_docker.py runs uv with the same words",
    "docker": "needs Docker; tests/packaging/test_docker.py runs what the image installs",
    "pip download": "needs the network",
    "convmixer push": "uploads",
    "convmixer train flowers --pretrained convmixer_768_32.in1k": "fetches published weights",
    "convmixer export --file_format web": "asks npm; tests/exporters/test_web_page.py does it and opens the page",
    "python -m http.server": "serves until it is stopped; that test has the same server",
    "convmixer export --file_format AOTI": "compiles for half a minute; tests/exporters/test_formats.py does so, slow",
    "convmixer eval --data_url flowers --pretrained flowers.aoti.pt2": "that file",
    "convmixer serve": "serves until it is stopped; tests/serve starts it",
    "CONVMIXER_TOKEN": "the same",
    "curl": "asks that server; tests/serve sends the same requests",
    "find ": "a pipe, which tests/data/test_unlabelled.py has",
    "convmixer infer photos --checkpoint runs/best --threshold .8 -o - |": "a pipe; tests/cli/test_infer.py has -o -",
    "convmixer bulk photos parts --checkpoint runs/best --ray": "tests/bulk has a local cluster",
    "sbatch": "needs a cluster",
    "srun": "needs a cluster",
    "torchrun": "two agents on loopback are tests/reliability/test_processes.py",
    "python scripts/kill_loop.py": "its short form is tests/reliability/test_kill_loop.py",
    "python benchmarks/": "measures for minutes; the session on a GPU runs below in small form",
}
# The network of the recipe small_folder, so that what follows in the document finds what it expects.
SMALL = (
    "--arch convmixer_128_6 --kernel_size 5 --patch_size 8 --image_size 64 --epochs 2 --batch_size 8 "
    "--num_parallel_workers 0"
)


def commands(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def runnable(line: str) -> str | None:
    """The line as it is run here, or None for one that is run elsewhere."""
    if any(line.startswith(start) for start in ELSEWHERE):
        return None
    line = re.sub(r"^convmixer\b", f"{sys.executable} -m convmixer.cli.main", line)
    line = re.sub(r"^python\b", sys.executable, line)
    line = re.sub(
        r"\b(train\.py|eval\.py|infer\.py|export\.py|eval_onnx\.py|infer_onnx\.py)\b", rf"{ROOT}/\1", line, count=1
    )
    line = re.sub(r"\b(scripts/|src/configs/)", rf"{ROOT}/\1", line)
    line = line.replace("--epochs 60", "").replace("--epochs 5", "")
    trains = re.search(r"main train\b|/train\.py|run_\w+_train", line)
    return f"{line} {SMALL}" if trains else line


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    draw_images(folder / "flowers", scale=4)
    for split in ("train", "val"):
        shutil.rmtree(folder / "flowers" / split / "blue")
        (folder / "flowers" / split / "green").rename(folder / "flowers" / split / "daisy")
        (folder / "flowers" / split / "red").rename(folder / "flowers" / split / "rose")
    shutil.copytree(folder / "flowers/val/rose", folder / "photos")
    shutil.copytree(folder / "flowers/train", folder / "photos_by_class")
    describe(folder)
    return folder


def describe(folder: Path) -> None:
    """The same images as a list, and as the tables of Hugging Face datasets."""
    import datasets

    lines = ["path,label,split"]
    for split in ("train", "val"):
        images = sorted((folder / "flowers" / split).glob("*/*"))
        lines += [f"{image.relative_to(folder)},{image.parent.name},{split}" for image in images]
        labels = datasets.ClassLabel(names=["daisy", "rose"])
        features = datasets.Features({"image": datasets.Image(), "label": labels})
        rows = {
            "image": [{"bytes": image.read_bytes(), "path": None} for image in images],
            "label": [labels.str2int(image.parent.name) for image in images],
        }
        (folder / "flowers_parquet").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"flowers_parquet/{split}.parquet")
    (folder / "flowers.csv").write_text("\n".join([*lines, ""]))


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of(document: str, scratch: Path) -> None:
    environment = project_environment(OMP_NUM_THREADS="1", PYTHON=sys.executable)
    for line in filter(None, map(runnable, commands(document))):
        # A glob that finds several runs means the newest.
        words = [
            str(max(scratch.glob(word), key=os.path.getmtime).relative_to(scratch)) if "*" in word else word
            for word in shlex.split(line)
        ]
        done = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "```python" in (ROOT / name).read_text("utf-8")])
def test_python_of(document: str, scratch: Path) -> None:
    """What a document shows of Python, one block after the other, in a network that is trained in seconds."""
    small = ", arch='convmixer_128_6', kernel_size=5, patch_size=8, image_size=64, batch_size=8, epochs=1)"
    code = "\n".join(PYTHON_BLOCK.findall((ROOT / document).read_text(encoding="utf-8")))
    code = re.sub(r", epochs=\d+\)", small, code)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=scratch,
        env=project_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.strip()


def test_every_document_has_commands_that_are_run() -> None:
    assert sum(runnable(line) is not None for line in commands("README.md")) >= 15


def sessions() -> list[str]:
    """The commands of a session on a GPU."""
    found = [line for document in DOCUMENTS for line in commands(document)]
    return [line for line in found if line.startswith("python benchmarks/gpu_session.py")]


def test_the_sessions_on_a_gpu_name_every_step_and_fit_their_slots(
    benchmark_script: Callable[[str], ModuleType],
) -> None:
    parse, steps = benchmark_script("gpu_session").parse, benchmark_script("session_steps")
    minutes = {step.name: step.minutes for step in steps.STEPS}
    named: set[str] = set()
    for line in sessions():
        options = parse(shlex.split(line)[2:], steps.STEPS)
        if not options.dry_run:
            names = options.only or steps.FIRST
            assert sum(minutes[name] for name in names) <= options.minutes, line
            named |= set(names)
    assert named == set(minutes)


@pytest.mark.slow
def test_the_sessions_that_train_cifar10_in_small_form(scratch: Path) -> None:
    """As they stand, with --dry_run, which trains on digits; tests/test_gpu_session.py runs all other steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = [line for line in sessions() if "--cifar10" in line]
    assert len(found) == 2
    for line in found:
        script, *words = shlex.split(line)[1:]
        command = [sys.executable, str(ROOT / script), *words, "--dry_run"]
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "left out" not in done.stdout


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for document in DOCUMENTS for word in re.findall(r"`?make ([\w-]+)", (ROOT / document).read_text())}
    assert named - {"sure"} <= targets


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/demo.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    trained = re.search(r"best: \S+ \(Top1-Acc ([\d.]+)\)", done.stdout)
    evaluated = re.search(r"eval results: \{.*'Top1-Acc': ([\d.]+)", done.stdout)
    assert trained is not None
    assert evaluated is not None
    assert trained[1] == evaluated[1]
    assert float(trained[1]) >= 0.985
    assert len(re.findall(r"samples/digits/(\d)\.png \(\1 ", done.stdout)) >= 9
