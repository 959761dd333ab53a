"""The page that classifies pictures, as an export has it or a server.

`page.js` takes pictures and shows what a `classifier` answers; `classify.js`, which defines that, is of whoever uses
the page. The one here runs the network in the browser.
"""

from __future__ import annotations

from importlib.resources import files

# All but classify.js.
SHARED = ("index.html", "style.css", "icon.svg", "page.js", "answers.js", "orientation.js")


def page_file(name: str) -> bytes:
    """The content of a file of the page, by its name."""
    return files(__name__).joinpath(name).read_bytes()
