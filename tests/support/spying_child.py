"""Stands in for the reading process: refuses every file, and says what it was given."""

from __future__ import annotations

import json
import os
import sys

if __name__ == "__main__":
    given = {
        "variables": sorted(os.environ.keys() - {"LC_CTYPE"}),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],  # noqa: PTH208
        "directory": os.getcwd(),  # noqa: PTH109
        "session": os.getsid(0) == os.getpid(),
    }
    json.dump({"refused": "unreadable", "code": "spied", "detail": json.dumps(given)}, sys.stderr)
