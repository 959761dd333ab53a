"""The report as one HTML page that needs nothing beside it: no script, no link, every name escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator

from PIL import Image

from convmixer.data.decode import decode_image
from convmixer.data.inspection.findings import Finding
from convmixer.data.inspection.report import DatasetReport, in_bytes, verdict
from convmixer.data.limits import BadImage
from convmixer.printable import printable

_ROWS = 200  # cases of a category on the page; JSON has all
_PICTURED = 12  # of these with pictures
_THUMBNAIL = 72  # longer side of a picture in pixels
_ROW, _NAME, _BAR = 22, 190, 520  # of the chart, in pixels: height of a class, width of its name and of the longest bar

# Nothing may be loaded or run, whatever a file is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #646f78; --line: #dfe3e6; --page: #fff; --tile: #f5f7f8;
  --train: #3b76af; --val: #e2a13d; --bad: #b3362c; --good: #2c7a4b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --soft: #99a4ad; --line: #333a40; --page: #16191c;
  --tile: #1f2428; --train: #6ba3d6; --val: #e8b663; --bad: #ef8a80; --good: #74c497; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.1rem; }
h2 b { margin-left: .4em; padding: .05em .55em; border-radius: 1em; background: var(--bad); color: var(--page);
  font-size: .8em; }
p { margin: .2rem 0 .8rem; color: var(--soft); }
.verdict { font-weight: 600; color: var(--bad); } .clean { color: var(--good); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0; }
dl div { padding: .7rem .9rem; border-radius: .5rem; background: var(--tile); }
dt { color: var(--soft); font-size: .85em; } dd { margin: 0; }
table { width: 100%; border-collapse: collapse; }
td { padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line); vertical-align: top; }
td:first-child { overflow-wrap: anywhere; font: 13px/1.55 ui-monospace, monospace; }
td:last-child { color: var(--soft); white-space: nowrap; padding-right: 0; text-align: right; }
td.alone { text-align: left; white-space: normal; color: var(--ink); }
img { height: 3rem; margin: .3rem .4rem 0 0; border-radius: .25rem; }
.chart { max-height: 36rem; overflow: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } svg .count { fill: var(--soft); font-size: 11px; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin: 0 .4em 0 1em; }
"""


def to_html(report: DatasetReport) -> str:
    """The whole page. Pictures of the first cases of each category are read again from the data."""
    title = f"Data set {_safe(report.data)}"
    state = "verdict" if report.findings else "verdict clean"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{title}</h1><p class="{state}">{_safe(verdict(report))}</p>',
        _facts(report),
        *(_section(report, finding) for finding in report.findings),
        _chart(report),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _safe(text: str) -> str:
    return html.escape(printable(text))


def _facts(report: DatasetReport) -> str:
    facts = {"images": f"{report.images:,}, {in_bytes(report.size)}"}
    facts |= {s.name: f"{len(s.paths):,} in {len(s.classes):,} classes" for s in report.splits}
    for name, counts in (("formats", report.formats()), ("ignored entries", report.ignored())):
        facts[name] = ", ".join(f"{key} {count:,}" for key, count in counts.items()) or "none"
    if sides := report.sides():
        min_size, median_size, max_size = (" × ".join(map(str, pair)) for pair in zip(*sides.values(), strict=True))
        facts["pixels (width × height)"] = f"{min_size} to {max_size}, median {median_size}"
    tiles = (f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(tiles)}</dl>"


def _section(report: DatasetReport, finding: Finding) -> str:
    rows = []
    for number, item in enumerate(finding.items[:_ROWS]):
        if not item.paths:
            rows.append(f'<tr><td class="alone">{_safe(item.detail)}</td></tr>')
            continue
        names = "<br>".join(_safe(report.shown(path)) for path in item.paths)
        pictures = "".join(_pictures(report, item.paths)) if number < _PICTURED else ""
        rows.append(f"<tr><td>{names}{'<br>' + pictures if pictures else ''}</td><td>{_safe(item.detail)}</td></tr>")
    hidden = len(finding.items) - len(rows)
    more = f"<p>and {hidden:,} more</p>" if hidden else ""
    head = f"<h2>{finding.category}<b>{len(finding.items):,}</b></h2><p>{_safe(finding.meaning)}</p>"
    return f"<section>{head}<table>{''.join(rows)}</table>{more}</section>"


def _pictures(report: DatasetReport, paths: tuple[str, ...]) -> Iterator[str]:
    """What can be decoded of the files, small, as images inside the page."""
    for path in paths[:_PICTURED]:
        try:
            image = decode_image(report.read(path))
        except (BadImage, MemoryError, OSError):
            continue
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
        file = io.BytesIO()
        image.save(file, "PNG")
        yield f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _chart(report: DatasetReport) -> str:
    """Images per class, one bar per split, the largest training class first."""
    counts = [split.counts() for split in report.splits]
    names = sorted(dict.fromkeys(name for each in counts for name in each), key=lambda name: -counts[0].get(name, 0))
    max_count = max((count for each in counts for count in each.values()), default=0) or 1
    height = (_ROW - 6) / len(counts)
    rows = []
    for row, name in enumerate(names):
        top = row * _ROW
        short = printable(name)
        short = short if len(short) <= 26 else short[:25] + "…"
        rows.append(f'<text x="{_NAME - 8}" y="{top + 15}" text-anchor="end">{html.escape(short)}</text>')
        for which, (split, each) in enumerate(zip(report.splits, counts, strict=True)):
            if not each.get(name):
                continue
            width = max(round(_BAR * each[name] / max_count), 1)
            fill = f"var(--{'val' if which else 'train'})"
            rows.append(
                f'<rect x="{_NAME}" y="{top + 3 + which * height:g}" width="{width}" height="{height:g}" rx="1.5" '
                f'fill="{fill}"><title>{_safe(name)}, {split.name}: {each[name]:,}</title></rect>'
            )
        shown = " / ".join(f"{each[name]:,}" if name in each else "–" for each in counts)
        row_max = max(each.get(name, 0) for each in counts)
        at = _NAME + max(round(_BAR * row_max / max_count), 1) + 8
        rows.append(f'<text class="count" x="{at}" y="{top + 15}">{shown}</text>')
    keys = "".join(
        f'<span class="key" style="background:var(--{"val" if which else "train"})"></span>{split.name}'
        for which, split in enumerate(report.splits)
    )
    width, total = _NAME + _BAR + 120, len(names) * _ROW
    label = 'role="img" aria-label="images per class"'
    svg = f'<svg viewBox="0 0 {width} {total}" width="100%" {label}>{"".join(rows)}</svg>'
    return f'<section><h2>Images per class</h2><p>{keys}</p><div class="chart">{svg}</div></section>'
