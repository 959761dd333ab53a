"""Options of what a command shows on stderr."""

from __future__ import annotations

from convmixer.config.options import Options, option


class LogOptions(Options):
    """Log"""

    quiet: bool = option(
        False,
        "show warnings and errors only, and no progress",
        flags=("-q",),
        other_names="silent",
        commands="train eval export",
        affects_training=False,
    )
    verbose: bool = option(
        False,
        "show more: where each option's value comes from, and what is measured",
        flags=("-v",),
        other_names="debug",
        commands="train eval export",
        affects_training=False,
    )
    log_json: bool = option(
        False,
        "log as JSON, one object per line, in place of text and progress bars",
        commands="train eval export",
        affects_training=False,
    )
