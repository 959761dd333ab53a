"""The site's pages: the reference names all that is public, links lead to files, the notebook becomes a page.

`make docs` builds the whole site and fails for a link or a name that leads nowhere.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pytest
from tests.project import ROOT

import convmixer

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


@pytest.fixture(scope="module")
def site_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "scripts/site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name() -> None:
    named = re.findall(r"^::: convmixer\.(\w+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(set(convmixer.__all__) - {"__version__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository_that_the_site_has(page: Path, site_hooks: ModuleType) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [link.split("#")[0] for link in links if not re.match(r"https?://|#", link)]
    taken = site_hooks.site_files()
    missing = [link for link in inside if (page.parent / link).resolve() not in taken]
    assert missing == []


def test_every_page_of_docs_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "docs").rglob("*.md") if f": docs/{path.name}\n" not in menu] == []


def notebook(*outputs: dict[str, Any]) -> dict[str, Any]:
    code = {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": list(outputs)}
    return {"cells": [{"cell_type": "markdown", "source": ["# Title\n", "\n", "Text."]}, code]}


def test_a_notebook_as_a_page(site_hooks: ModuleType) -> None:
    picture = {
        "output_type": "display_data",
        "data": {"image/png": base64.b64encode(b"PNG").decode(), "text/plain": "F"},
    }
    page, images = site_hooks.notebook_page(
        notebook(
            {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]},
            picture,
            {"output_type": "execute_result", "data": {"text/plain": ["1"]}},
        ),
        PurePosixPath("docs/walk.ipynb"),
    )
    assert page == (
        "# Title\n\nText.\n\n[Download this notebook](walk.ipynb)\n\n```python\nx = 1\nx\n```\n\n"
        "```text\none\ntwo\n```\n\n![output of the cell above](walk_0.png)\n\n```text\n1\n```\n"
    )
    assert images == {"walk_0.png": b"PNG"}


def test_a_notebook_with_a_failed_cell_is_no_page(site_hooks: ModuleType) -> None:
    failed = notebook({"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []})
    with pytest.raises(ValueError, match="a cell failed with ValueError; run `make tutorial`"):
        site_hooks.notebook_page(failed, PurePosixPath("docs/walk.ipynb"))
