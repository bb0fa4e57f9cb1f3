"""Where the servers of the tests keep their data."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_IN_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2_000_000_000


def throwaway_directory(prefix: str) -> Path:
    """A new private directory, in memory where the machine has room: creating a database there takes a tenth."""
    parent = None
    if _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ENOUGH_BYTES:
        parent = _IN_MEMORY
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
