"""Bounds of memory and time for the first run of a file that a stranger may have made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # Windows has none
    resource = None  # type: ignore[assignment]

_STATM = Path("/proc/self/statm")


@contextmanager
def memory_growth(limit: int) -> Iterator[None]:
    """Within it this process may take `limit` bytes more; what asks for more fails. On Linux only.

    It counts memory that can be written (RLIMIT_DATA), not mapped files, and not address space that is only set aside;
    that of all threads, which therefore should not load anything meanwhile.
    """
    if resource is None or not _STATM.exists():
        yield
        return
    data = int(_STATM.read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    new_limit = min(value for value in (data + limit, soft, hard) if value != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (new_limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
