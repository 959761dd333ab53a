"""One result of the doctor, and all of them as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from convmixer.printable import printable

FORMAT = 1
# error: something that every run needs is not there; warning: something that some runs need, or need more of.
Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class CheckResult:
    """What was checked, what was found, and in one line how to mend it where it is not ok."""

    name: str
    status: Status
    found: str
    fix: str = ""


def healthy(results: Sequence[CheckResult]) -> bool:
    """Whether all that every run needs is there."""
    return all(result.status != "error" for result in results)


def to_text(results: Sequence[CheckResult]) -> str:
    """A line per result, below it the fix where there is one, and a last line with the sum."""
    width = max(len(result.name) for result in results)
    lines = []
    for result in results:
        lines.append(f"{result.status:<7} {result.name:<{width}}  {printable(result.found)}")
        if result.fix:
            lines.append(f"{'':<7} {'':<{width}}  fix: {printable(result.fix)}")
    warnings, errors = (sum(result.status == status for result in results) for status in ("warning", "error"))
    lines += ["", f"{len(results)} checks: {errors} errors, {warnings} warnings"]
    return "\n".join(lines)


def to_record(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"format": FORMAT, "healthy": healthy(results), "answers": [asdict(result) for result in results]}
