"""The exported page in a real Chromium: it answers as Python does, can be used by all, and asks nobody else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests.browser import PHONE, Browser, Tab, chromium, served
from tests.conftest import run_command
from tests.exporters.conftest import lively_model, metadata_of

import convmixer
from convmixer.data.classes import ClassMap
from convmixer.errors import UserError
from convmixer.exporters.onnxruntime_web import runtime_files
from convmixer.weights.write import write_weights

pytestmark = pytest.mark.slow

# A name that would be run if it were taken for HTML.
NAMES = ("daisy", "<img src=x onerror=alert(1)>", "rose", "sunflower with a name that goes on and on", "tulip")
# Decoders of PNG agree to the bit. Those of JPEG may differ by a level, and so does what lies on white; each level is
# worth 1e-3 of a probability here, where the network is as steep as one that was trained.
PNG, ABOUT_A_LEVEL = 1e-3, 1e-2


def photo(width: int = 160, height: int = 120) -> np.ndarray:
    """Like a photo: shades, edges and some noise; no two sides alike, so that a turned one is another picture."""
    y, x = np.mgrid[:height, :width] / height
    planes = [np.sin(3 * x + y) * 0.4 + 0.5, 0.8 * y, 0.3 + 0.4 * (x > 0.7) + 0.2 * (y < 0.3)]
    noise = np.random.default_rng(0).normal(0, 0.03, (height, width, 3))
    return (np.clip(np.stack(planes, axis=-1) + noise, 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all that a decoder may take another way, named by what they are."""
    folder = tmp_path_factory.mktemp("pictures")
    colour = Image.fromarray(photo())
    colour.save(folder / "photo.png")
    colour.convert("L").save(folder / "grey.png")
    colour.quantize(64).save(folder / "palette.png")
    # Twice as bright, says a note that decoders of colour-managed programs follow.
    dark = PngImagePlugin.PngInfo()
    dark.add(b"gAMA", (100_000).to_bytes(4, "big"))
    colour.save(folder / "gamma.png", pnginfo=dark)
    alpha = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))
    Image.fromarray(np.dstack([photo(), alpha])).save(folder / "transparent.png")
    colour.save(folder / "photo.jpg", quality=90)
    for orientation in range(2, 9):
        colour.save(folder / f"turned{orientation}.jpg", quality=90, exif=exif(orientation))
    colour.save(folder / "turned.png", exif=exif(6))
    colour.save(folder / "turned.webp", lossless=True, exif=exif(8))
    colour.convert("L").save(folder / "grey.jpg", quality=90)
    colour.resize((1200, 900)).save(folder / "large.webp", lossless=True)
    return folder


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def tolerance(path: Path) -> float:
    return ABOUT_A_LEVEL if path.suffix == ".jpg" or path.stem == "transparent" else PNG


def exported(folder: Path, channels: int, *, exif: bool) -> tuple[Path, Path]:
    """Weights with an answer that depends on the picture, and the folder that they are exported to."""
    model = lively_model("convmixer_16_2", kernel_size=3, patch_size=4, num_classes=5, in_chans=channels)
    metadata = metadata_of(model, size=48, crop_pct=0.875, classes=ClassMap(NAMES))
    weights = folder / "weights.safetensors"
    write_weights(
        weights,
        model.state_dict(),
        architecture=model.arch,
        classes=metadata.classes,
        preprocessing=metadata.preprocessing,
    )
    words = ["--file_format=web", "--pretrained", weights, "--output", folder / "page", f"--exif={exif}"]
    done = run_command("export", *words, "--parity_images=4")
    assert done.code == 0, done.err
    assert done.out == f"{folder / 'page'}\n"
    return weights, folder / "page"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        try:
            runtime_files(None)
        except UserError as error:
            pytest.skip(f"needs onnxruntime-web: {error}")
        yield browser


@pytest.fixture(scope="module")
def colour(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return exported(tmp_path_factory.mktemp("colour"), 3, exif=True)


@pytest.fixture
def tab(browser: Browser, colour: tuple[Path, Path]) -> Iterator[Tab]:
    """The page for colour, ready."""
    with served(colour[1]) as address:
        tab = browser.open(address)
        tab.wait_for("#about", "knows 5 classes")
        yield tab
        tab.page.context.close()


def answers(tab: Tab) -> dict[str, dict[str, float]]:
    """What the cards show: file -> name of a class -> probability."""
    script = """cards => Object.fromEntries(cards.map(card => [
        card.querySelector("h2").textContent,
        Object.fromEntries([...card.querySelectorAll(".row")].map(row =>
            [row.querySelector(".name").textContent, Number(row.querySelector("data").value)]))]))"""
    found: dict[str, dict[str, float]] = tab.page.eval_on_selector_all(".card", script)
    return found


def expected(weights: Path, paths: list[Path], **options: Any) -> dict[str, dict[str, float]]:
    return {
        Path(each.path).name: {one.name: one.probability for one in each.topk}
        for each in convmixer.predict(weights, [str(path) for path in paths], **options)
    }


def assert_answers_as_python(tab: Tab, weights: Path, paths: list[Path], *, exif: bool) -> None:
    tab.wait_for("#status", f"Answered: {len(paths)}.")
    found, wanted = answers(tab), expected(weights, paths, exif=exif)
    assert list(found) == [path.name for path in paths]
    differences = {
        path.name: max(abs(found[path.name][name] - wanted[path.name][name]) for name in NAMES) for path in paths
    }
    assert all(differences[path.name] <= tolerance(path) for path in paths), differences
    assert (tab.complaints, tab.strangers()) == ([], [])


def test_it_answers_as_python_does(tab: Tab, colour: tuple[Path, Path], pictures: Path) -> None:
    paths = sorted(pictures.iterdir())
    tab.drop("#drop", *paths)
    assert_answers_as_python(tab, colour[0], paths, exif=True)
    found = answers(tab)
    # The comparison would find these: what is turned, grey or made brighter has another answer.
    for other in ("turned6.jpg", "grey.jpg", "transparent.png"):
        assert max(abs(found[other][name] - found["photo.jpg"][name]) for name in NAMES) > 2 * ABOUT_A_LEVEL, other
    assert len(set(found["photo.png"])) == 5


def test_a_network_for_grey_pictures_that_are_not_turned(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, pictures: Path
) -> None:
    weights, page = exported(tmp_path_factory.mktemp("grey"), 1, exif=False)
    paths = sorted(pictures.iterdir())
    with served(page) as address:
        tab = browser.open(address)
        tab.drop("body", *paths)  # beside the frame, and before the network is there
        assert_answers_as_python(tab, weights, paths, exif=False)


def test_by_keyboard_alone(tab: Tab, pictures: Path) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Choose pictures"
    with tab.page.expect_file_chooser() as chooser:
        tab.page.keyboard.press("Enter")
    assert chooser.value.is_multiple()
    chooser.value.set_files([str(pictures / "photo.png"), str(pictures / "grey.png")])
    tab.wait_for("#status", "Answered: 2.")
    assert list(answers(tab)) == ["photo.png", "grey.png"]


def test_a_screen_reader_is_told_what_there_is(tab: Tab, pictures: Path) -> None:
    tab.choose("#files", pictures / "photo.png")
    tab.wait_for("#status", "Answered: 1.")
    tree = tab.page.locator("body").aria_snapshot()
    first = max(answers(tab)["photo.png"].items(), key=lambda answer: answer[1])
    for line in ('button "Choose pictures"', "status: ", "Answered: 1.", 'list "Answers"', 'img "photo.png"'):
        assert line in tree
    assert re.search(rf"listitem: .*{re.escape(first[0])} {100 * first[1]:.1f} %", tree), tree
    assert tab.page.get_attribute("#answers", "aria-live") == "polite"


def test_later_pictures_stand_above_and_a_file_that_is_none_says_so(tab: Tab, pictures: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((pictures / "photo.png").read_bytes()[:200])
    tab.drop("#drop", pictures / "photo.png")
    tab.wait_for("#status", "Answered: 1.")
    tab.drop("#drop", broken, pictures / "grey.png")
    tab.wait_for("#status", "Answered: 2. Without an answer: 1.")
    assert list(answers(tab)) == ["broken.png", "grey.png", "photo.png"]
    assert tab.page.locator(".card.bad p").inner_text() == "This is no picture that the browser can read."
    assert tab.complaints == []


def test_it_fits_a_phone(tab: Tab, pictures: Path, tmp_path: Path) -> None:
    long_name = tmp_path / f"{'a-name-without-an-end' * 8}.png"
    shutil.copy(pictures / "photo.png", long_name)
    tab.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    tab.drop("#drop", long_name)
    tab.wait_for("#status", "Answered: 1.")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_it_says_what_to_do_where_no_network_can_be_loaded(
    browser: Browser, colour: tuple[Path, Path], tmp_path: Path
) -> None:
    from_disk = browser.open((colour[1] / "index.html").as_uri())
    from_disk.wait_for("#status", "python -m http.server")
    assert from_disk.page.is_disabled("#choose")
    page = shutil.copytree(colour[1], tmp_path / "page")
    (page / "model.onnx").unlink()
    with served(page) as address:
        browser.open(address).wait_for("#status", "The network could not be loaded")
