"""docs/options.md is what the schema says."""

from __future__ import annotations

from pathlib import Path

from convmixer.config.table import page

ROOT = Path(__file__).resolve().parents[2]


def test_page_is_current() -> None:
    assert (ROOT / "docs/options.md").read_text(encoding="utf-8") == page(), (
        "run: .venv/bin/python -m convmixer.config.table > docs/options.md"
    )
