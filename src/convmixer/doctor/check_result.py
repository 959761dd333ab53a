"""One answer of the doctor, and all of them as text or JSON."""

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
    """What was looked at, what was found, and in one line how to mend it where it is not ok."""

    name: str
    status: Status
    found: str
    fix: str = ""


def healthy(answers: Sequence[CheckResult]) -> bool:
    """Whether all that every run needs is there."""
    return all(answer.status != "error" for answer in answers)


def to_text(answers: Sequence[CheckResult]) -> str:
    """A line an answer, below it the fix where there is one, and a last line with the sum."""
    width = max(len(answer.name) for answer in answers)
    lines = []
    for answer in answers:
        lines.append(f"{answer.status:<7} {answer.name:<{width}}  {printable(answer.found)}")
        if answer.fix:
            lines.append(f"{'':<7} {'':<{width}}  fix: {printable(answer.fix)}")
    warnings, errors = (sum(answer.status == status for answer in answers) for status in ("warning", "error"))
    lines += ["", f"{len(answers)} checks: {errors} errors, {warnings} warnings"]
    return "\n".join(lines)


def to_record(answers: Sequence[CheckResult]) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"format": FORMAT, "healthy": healthy(answers), "answers": [asdict(answer) for answer in answers]}
