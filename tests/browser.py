"""A real Chromium for the tests of pages: what a tab asked for and complained of, files chosen and dropped, pictures.

    with chromium() as browser, served(folder) as address:
        tab = browser.open(address)
        tab.drop("#drop", photo)
        tab.wait_for("#status", "Answered: 1.")
        assert (tab.complaints, tab.strangers()) == ([], [])

`tab.page` is Playwright's own page, for all else: its keyboard, its elements, its accessibility tree.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

DESKTOP, PHONE = (1100, 900), (390, 844)
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Files have no path in a page: they are built there of their bytes, and handed over as a mouse would.
_DROP = """([element, files]) => {
    const transfer = new DataTransfer();
    for (const [name, encoded] of files)
        transfer.items.add(new File([Uint8Array.from(atob(encoded), c => c.charCodeAt(0))], name));
    for (const type of ["dragenter", "dragover", "drop"])
        element.dispatchEvent(new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


class Tab:
    """A page, every address that it asked for (`requests`), and each error or warning of it (`complaints`)."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def choose(self, selector: str, *paths: Path) -> None:
        """Files into the <input type="file"> that `selector` finds, as its dialogue would."""
        self.page.set_input_files(selector, [str(path) for path in paths])

    def drop(self, selector: str, *paths: Path) -> None:
        """Files dragged onto the element that `selector` finds, and let go."""
        files = [[path.name, b64encode(path.read_bytes()).decode()] for path in paths]
        self.page.evaluate(_DROP, [self.page.query_selector(selector), files])

    def wait_for(self, selector: str, text: str) -> None:
        """Until the element that `selector` finds shows this text; Playwright's wait_for_function needs eval."""
        self.page.locator(selector, has_text=text).wait_for()

    def strangers(self) -> list[str]:
        """Addresses that the page asked for elsewhere than at 127.0.0.1."""
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1"
        ]

    def screenshot(self, path: Path, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        """The whole page as PNG, in a window of that width and height."""
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        self.page.screenshot(path=path, full_page=True)


class Browser:
    """A running Chromium; each tab has a profile of its own."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def open(self, address: str, **options: Any) -> Tab:
        """A new tab at that address. `options`: of Playwright's `new_context`."""
        context = self.browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]}, **options)
        tab = Tab(context.new_page())
        tab.page.goto(address)
        return tab


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window. Skips the test where it, or Playwright, is not there."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright, of the extra dev")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser: {' or '.join(_NAMES)}")
    with playwright.sync_playwright() as driver:
        # Tests may run as root in a container, where Chromium's sandbox and its shared memory are not to be had.
        words = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
        browser = driver.chromium.launch(executable_path=program, args=words)
        try:
            yield Browser(browser)
        finally:
            browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which Python's own server, `python -m http.server`, has the folder."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
