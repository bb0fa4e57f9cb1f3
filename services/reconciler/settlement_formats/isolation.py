"""What Linux offers to keep the reading process apart from the one that starts it.

Elsewhere, and where a container does not permit it, these do nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def hide_memory() -> None:
    """Of this process: no other one of the same user may read its memory and environment. Root still may."""
    _prctl(_PR_SET_DUMPABLE, 0)


def leave_network() -> bool:
    """False: it is not permitted here. Only for a process with one thread."""
    return sys.platform == "linux" and bool(ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def end_with(parent: int) -> None:
    """This process is killed when ``parent``, which started it, ends, however that ends. After ``leave_network``, which
    takes this back."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it has ended already


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
