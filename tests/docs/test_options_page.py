"""docs/options.md is what the schema says."""

from __future__ import annotations

import re

from tests.project import ROOT

from convmixer.config.table import page


def test_page_is_current() -> None:
    assert (ROOT / "docs/options.md").read_text(encoding="utf-8") == page(), (
        "run: .venv/bin/python -m convmixer.config.table > docs/options.md"
    )


def test_nothing_on_the_page_is_taken_for_a_tag() -> None:
    assert "any convmixer_&lt;dim>_&lt;depth> |" in page()
    assert re.findall(r"<\w+>", re.sub(r"`[^`]*`", "", page())) == []
