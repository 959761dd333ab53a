"""The report of a run: true, escaped, small enough, and free of errors in a real browser."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import Command, Run, ToyOptions

from convmixer.backends.torch_inside import class_maps, maps_of_crops
from convmixer.class_activation import overlaid
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import create_model
from convmixer.report.curves import charts_of, png, svg
from convmixer.report.gallery import surest_mistakes
from convmixer.report.tables import confusions
from convmixer.report.verdict import sentences
from convmixer.report.write import write_report
from convmixer.runs.record import Predictions, RunRecord

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_the_mean_of_a_map_is_the_logit() -> None:
    torch.manual_seed(0)
    model = create_model("convmixer_16_3", kernel_size=3, patch_size=4, num_classes=5)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
        images, classes = torch.randn(6, 3, 24, 20), torch.tensor([0, 1, 2, 3, 4, 2])
        maps = class_maps(model, images, classes)
        assert maps.shape == (6, 6, 5)
        torch.testing.assert_close(maps.mean(dim=(1, 2)), model(images)[torch.arange(6), classes])


def test_maps_are_laid_over_the_crop() -> None:
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3)
    crops = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    maps = maps_of_crops(model, Preprocessing(size=8), crops, np.array([0, 2]))
    assert maps.shape == (2, 4, 4)
    above = np.zeros((4, 4))
    above[0, 0] = 1.0
    picture = overlaid(crops[0], above)
    assert picture.shape == (8, 8, 3)
    # Where nothing speaks for the class the image is as it is, in grey.
    assert len(set(picture[7, 7].tolist())) == 1
    assert picture[0, 0, 0] > picture[0, 0, 2]


def found(labels: list[int], predicted: list[int], sure: list[float], of_label: list[float]) -> Predictions:
    paths = tuple(f"{i}.jpg" for i in range(len(labels)))
    return Predictions(paths, np.array(labels), np.array(predicted), np.array(sure), np.array(of_label))


def test_the_surest_mistakes_come_first() -> None:
    answers = found([0, 0, 1, 1, 1], [0, 1, 0, 0, -1], [0.9, 0.6, 0.99, 0.7, 0.1], [0.9, 0.3, 0.001, 0.2, 0.0])
    assert surest_mistakes(answers).tolist() == [2, 3, 1]


def evaluations(*top1: float, loss: list[float] | None = None) -> list[dict[str, float]]:
    losses = loss or [1.0 - 0.01 * i for i in range(len(top1))]
    return [{"epoch": i, "Top1-Acc": each, "Loss": losses[i]} for i, each in enumerate(top1)]


def test_the_verdict_in_words() -> None:
    answers = found([0] * 10 + [1] * 10, [0] * 9 + [1] + [1] * 4 + [0] * 6, [0.95] * 20, [0.5] * 20)
    said = sentences(evaluations(0.5, 0.6, 0.7), answers, ("rose", "tulip"))
    assert said[0] == "13 of 20 evaluation images are answered right: 65.0%."
    assert said[1] == "tulip is found least often: 40% of its 10 images. It is most often taken for rose (6 times)."
    assert "rose by 10.0 points" in said[2]
    assert said[3] == "The network is too sure of itself: probabilities are 30.0% off on average."
    assert "hardly rose" in sentences(evaluations(0.5, 0.7, 0.7), None, ())[0]
    assert "overfits" in sentences(evaluations(0.5, 0.7, 0.69, loss=[1.0, 0.8, 0.95]), None, ())[0]


def test_charts_have_colours_of_the_page_and_ids_of_their_own() -> None:
    train = [{"epoch": i / 100, "loss": 1 / (i + 1), "lr": 0.1, "grad_norm": 1.0} for i in range(5000)]
    charts = {chart.name: chart for chart in charts_of(train, [{"epoch": 50, "Loss": 0.5, "Top1-Acc": 0.5}])}
    assert list(charts) == ["loss", "accuracy", "learning_rate", "gradient_norm"]
    drawn = svg(charts["loss"])
    assert "currentColor" in drawn
    assert "#010203" not in drawn
    assert len(drawn) < 40_000  # 5,000 points are thinned
    ids = set(re.findall(r'id="([^"]+)"', drawn))
    assert all(name.startswith("loss-") for name in ids)
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', drawn)) <= {(n, "") for n in ids} | {("", n) for n in ids}
    assert png(charts["loss"]).startswith(b"\x89PNG")


@pytest.fixture
def explained(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> Run:
    done = convmixer("train", *toy_options(toy, report=True), "--mixup=0.5")
    assert done.code == 0, done.err
    assert "report: runs/summary/" in done.err
    return Run.below(here, done)


def test_a_run_ends_with_its_report(explained: Run, convmixer: Command) -> None:
    page = (explained.summary / "report.html").read_text(encoding="utf-8")
    for title in ("Curves", "Classes", "Confusions", "What the network was trained on", "The data", "The run"):
        assert f"<h2>{title}</h2>" in page
    assert "top-5" not in page
    assert page.count('<img src="data:image/jpeg;base64,') >= 13 + 8  # each evaluation image and its map, a batch
    assert f"convmixer train --resume {explained.name}" in page
    assert "epochs" in page
    record = json.loads((explained.summary / "first_batch.json").read_text())
    assert len(record["targets"]) == 8
    assert any("%" in target for target in record["targets"])
    for name in ("loss", "accuracy", "learning_rate", "gradient_norm", "images_per_second", "data_wait"):
        with Image.open(explained.summary / f"{name}.png") as image:
            assert image.size[0] > 500
    # Nothing is loaded from anywhere.
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    before = page
    done = convmixer("report", explained.name)
    assert done.code == 0, done.err
    assert done.out == f"runs/summary/{explained.name}/report.html\n"
    assert (explained.summary / "report.html").read_text(encoding="utf-8") == before


def test_without_data_or_weights_it_says_so(explained: Run, convmixer: Command) -> None:
    shutil.rmtree(explained.best)
    assert convmixer("report", str(explained.summary)).code == 0
    page = (explained.summary / "report.html").read_text(encoding="utf-8")
    assert "Images are not shown: the best weights are not beside the run any more." in page
    assert "Surest mistakes" not in page


def test_a_frozen_run_has_no_curves_and_is_asked_for_no_epochs(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    done = convmixer("train", *toy_options(toy, report=True), "--freeze", f"--pretrained={weights}")
    assert done.code == 0, done.err
    page = (Run.below(here, done).summary / "report.html").read_text(encoding="utf-8")
    for title in ("Classes", "Confusions", "The data", "The run"):
        assert f"<h2>{title}</h2>" in page
    for word in ("<h2>Curves</h2>", "too few evaluations", "epochs would"):
        assert word not in page
    assert not (Run.below(here, done).summary / "loss.png").exists()


def test_two_runs_are_compared(explained: Run, convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    other = convmixer("train", *toy_options(toy, epochs=3), "--model_postfix=other")
    assert other.code == 0, other.err
    names = sorted(path.name for path in Path("runs/summary").iterdir())
    done = convmixer("report", *names, "-o", "both.html")
    assert done.code == 0, done.err
    page = Path("both.html").read_text(encoding="utf-8")
    assert all(page.count(name) >= 3 for name in names)
    assert "<td>epochs</td><td>2</td><td>3</td>" in page


@pytest.mark.parametrize("words", [["report"], ["report", "nowhere"]])
def test_wrong_use(convmixer: Command, here: Path, words: list[str]) -> None:
    done = convmixer(*words)
    assert done.code == 2
    assert "RUN" in done.error


def test_a_report_that_fails_is_one_line(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(record: RunRecord) -> Path:
        raise ValueError("no ink")

    monkeypatch.setattr("convmixer.report.write.write_report", fail)
    done = convmixer("train", *toy_options(toy, report=True, epochs=1))
    assert done.code == 0
    assert "the report could not be made: no ink; convmixer report runs/summary/" in done.err


HOSTILE = ("<script>alert(1)</script>", 'a"onerror="x', "{{ 7 * 7 }}", "new\nline", "\udcff", "$\\frac{1}$", "&amp;")


def made_up(folder: Path, classes: tuple[str, ...], images: int) -> RunRecord:
    """A record without data or weights."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    (folder / "config.yaml").write_text("arch: convmixer_8_2  # command line\nepochs: 9  # default\n")
    (folder / "run.json").write_text(json.dumps({"command": "convmixer train '<b>'"}))
    (folder / "classes.json").write_text(json.dumps(classes))
    lines = [{"kind": "train", "step": i, "epoch": i / 100, "loss": 1.0, "lr": 0.1} for i in range(20_000)]
    lines += [
        {"kind": "eval", "step": i, "epoch": i, "Loss": 0.5, "Top1-Acc": 0.5, "Top5-Acc": 0.9} for i in range(200)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (folder / "predictions.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "predicted", "probability", "label_probability"))
        for number, (label, other) in enumerate(draw.integers(0, len(classes), (images, 2)).tolist()):
            writer.writerow((f"{classes[label]}/{number}.jpg", classes[label], classes[other], 0.5, 0.25))
    return RunRecord.open(folder)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    page = write_report(made_up(tmp_path / "summary/run", HOSTILE, 300)).read_text(encoding="utf-8")
    assert page.count("<script>") == 1  # ours
    assert "alert(1)" in page
    assert 'onerror="x' not in page
    assert html.escape("{{ 7 * 7 }}") in page
    assert "&amp;amp;" in page
    assert "\\udcff" in page


def test_it_stays_small(tmp_path: Path) -> None:
    classes = tuple(f"n{number:08d} some class of a thousand" for number in range(1000))
    path = write_report(made_up(tmp_path / "summary/run", classes, 100_000))
    assert path.stat().st_size < 5_000_000
    assert "confusion matrix" in path.read_text(encoding="utf-8")
    few = confusions(found([0, 1], [0, 0], [1.0, 1.0], [1.0, 0.0]), ("a", "b"))
    assert [[cell["count"] for cell in row["cells_"]] for row in few["rows"]] == [[1, 0], [1, 0]]


def browse(page: Path, profile: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    own = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={profile}"]
    command = [CHROMIUM, *own, *words, page.absolute().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rows_of(dom: str) -> list[str]:
    return re.findall(r"<td>(blue|green|red)</td>\s*<td class=\"number\" data-value", dom)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_has_nothing_to_complain_of(explained: Run, tmp_path: Path) -> None:
    """Ours is the only script that runs, and after a click the classes are in the order of their names."""
    report, picture = explained.summary / "report.html", tmp_path / "page.png"
    done = browse(report, tmp_path / "profile", "--window-size=1000,2000", f"--screenshot={picture}")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 100
    # A copy whose policy allows a script that clicks.
    click = 'document.querySelector("th button").click()'
    digest = base64.b64encode(hashlib.sha256(click.encode()).digest()).decode()
    page = report.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{digest}' ")
    for name, added in (("clicked", click), ("stranger", click.replace("click()", "remove()"))):
        copy = tmp_path / f"{name}.html"
        copy.write_text(page.replace("</body>", f"<script>{added}</script></body>"), encoding="utf-8")
        done = browse(copy, tmp_path / "profile", "--dump-dom")
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        if name == "clicked":
            assert rows_of(done.stdout) == ["blue", "green", "red"]
            assert complaints == []
        else:
            assert sorted(rows_of(done.stdout)) == ["blue", "green", "red"]
            assert "Content Security Policy" in complaints[0]
