"""The server's page in a real Chromium: photos in, answers and maps out, by mouse, keyboard and for screen readers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.browser import PHONE, Browser, Tab, chromium
from tests.exporters.conftest import lively_model
from tests.serve.served import Served, serving

import convmixer
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.weights.write import write_weights

pytest.importorskip("starlette", reason="needs the extra serve")
pytestmark = pytest.mark.slow

# A name that would be run if it were taken for HTML.
NAMES = ("daisy", "<img src=x onerror=alert(1)>", "rose")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = lively_model("convmixer_16_2", kernel_size=3, patch_size=4, num_classes=3)
    path = tmp_path_factory.mktemp("page") / "weights.safetensors"
    inputs = Preprocessing(size=48, crop_pct=0.875)
    write_weights(path, model.state_dict(), architecture=model.arch, classes=ClassMap(NAMES), preprocessing=inputs)
    return path


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[Served]:
    with serving(weights) as served:
        yield served


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("one.png", "two.jpg", "three.bmp")]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (60, 90, 3), np.uint8)).save(path)
    return paths


@pytest.fixture
def tab(browser: Browser, server: Served) -> Iterator[Tab]:
    """The page, ready, and alone: a tab behind others may get no dialogue."""
    tab = browser.open(server.address)
    tab.wait_for("#about", "knows 3 classes")
    yield tab
    tab.page.context.close()


def test_photos_that_are_dropped(tab: Tab, weights: Path, photos: list[Path]) -> None:
    tab.wait_for("#about", "convmixer_16_2 knows 3 classes: daisy, <img src=x onerror=alert(1)>, rose")
    tab.drop("#drop", *photos)
    tab.wait_for("#status", "Answered: 3.")
    cards = tab.page.locator("#answers > li")
    for card, expected in zip(cards.all(), convmixer.predict(weights, list(photos)), strict=True):
        assert card.locator(".row .name").all_inner_texts() == [each.name for each in expected.topk]
        shares = [float(text.split()[0]) for text in card.locator(".row data").all_inner_texts()]
        assert shares == pytest.approx([100 * each.probability for each in expected.topk], abs=0.06)
    assert (tab.complaints, tab.strangers()) == ([], [])


def test_what_spoke_for_an_answer(tab: Tab, photos: list[Path]) -> None:
    tab.choose("#files", photos[0])
    tab.wait_for("#status", "Answered: 1.")
    button = tab.page.get_by_role("button", name=re.compile("What spoke for"))
    picture = tab.page.locator(".picture")
    before = picture.get_attribute("aria-label")
    button.focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("button[aria-pressed=true]").wait_for()
    assert "what spoke for" in (picture.get_attribute("aria-label") or "")
    assert picture.evaluate("canvas => canvas.width") == 48
    tab.page.keyboard.press("Enter")
    tab.page.locator("button[aria-pressed=false]").wait_for()
    assert picture.get_attribute("aria-label") == before == "one.png"
    assert (tab.complaints, tab.strangers()) == ([], [])


def test_by_keyboard_and_for_screen_readers(tab: Tab, photos: list[Path]) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Choose pictures"
    with tab.page.expect_file_chooser() as chooser:
        tab.page.keyboard.press("Enter")
    chooser.value.set_files([str(photos[1])])
    tab.wait_for("#status", "Answered: 1.")
    heard = tab.page.locator("body").aria_snapshot()
    for part in ('button "Choose pictures"', 'status: "Answered: 1."', 'list "Answers"', 'img "two.jpg"', "heading"):
        assert part in heard, heard


def test_files_that_are_no_pictures_and_a_server_that_has_gone(
    browser: Browser, weights: Path, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with serving(weights) as served:
        tab = browser.open(served.address)
        tab.drop("#drop", tmp_path / "notes.txt", photos[0])
        tab.wait_for("#status", "Answered: 1. Without an answer: 1.")
        assert "A text, no image." in tab.page.locator(".card.bad").inner_text()
        served.stop()
        tab.drop("#drop", photos[1])
        tab.wait_for(".card.bad >> nth=0", "The server does not answer.")
        tab.page.context.close()


def test_a_token_is_asked_for(browser: Browser, weights: Path, photos: list[Path]) -> None:
    with serving(weights, CONVMIXER_TOKEN="sesame") as served:
        tab = browser.open("about:blank")
        typed = iter(["wrong", "sesame"])
        tab.page.on("dialog", lambda dialog: dialog.accept(next(typed)))
        tab.page.goto(served.address)
        tab.wait_for("#about", "knows 3 classes")
        tab.drop("#drop", photos[0])
        tab.wait_for("#status", "Answered: 1.")
        tab.page.context.close()


def test_on_a_phone_nothing_is_wider_than_it(tab: Tab, photos: list[Path]) -> None:
    tab.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    tab.drop("#drop", *photos)
    tab.wait_for("#status", "Answered: 3.")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
