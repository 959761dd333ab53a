"""`convmixer export`: weights as a file of another format, proven to answer as they do before it is left there."""

from __future__ import annotations

from convmixer.config.commands import EXPORT as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import ExportConfig

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[ExportConfig]) -> int:
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.exporters.proven import export_weights

    print(export_weights(resolved).path)
    return 0
