"""`convmixer benchmark`: model files side by side on this machine."""

from __future__ import annotations

import logging

from convmixer.cli.output_file import as_json, check_writable, write_output
from convmixer.config.commands import BENCHMARK as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import BenchmarkConfig
from convmixer.errors import RUN_FAILED
from convmixer.model_benchmark.comparison import compare_files, to_record, to_text

__all__ = ["COMMAND", "run"]

logger = logging.getLogger(__name__)


def run(resolved: Resolved[BenchmarkConfig]) -> int:
    path = check_writable(resolved.options.json_file, "--json")
    comparison = compare_files(resolved)
    if comparison.rows:
        print(to_text(comparison))
    if path is not None:
        write_output(path, as_json(to_record(comparison, resolved.options.seconds)), "written")
    for item in comparison.failed:
        logger.warning(f"not compared: {item.file} in {item.engine}: {item.reason}")
    return RUN_FAILED if comparison.failed else 0
