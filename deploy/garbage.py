"""The garbage collector of a process that serves or works.

Measured with 200 webhooks at once in one process (tests/bench/micro_edge.py's edge, a store that answers every 4 ms):
with Python's own thresholds 23 to 26 % of the CPU went into 390 collections, the longest of which stopped the process
for more than 100 ms, and not one object was found. With what is set here there were none, and nothing piled up.

A request that waits for its commit holds some hundred objects, so a busy process passes the threshold of 700 all the
time, and each full collection looks at the 200 000 objects that the program itself consists of. What requests leave
behind is freed by its reference counts; cycles are rare (an exception with its traceback) and small.
"""

from __future__ import annotations

import gc

THRESHOLDS = (20_000, 20, 20)
"""New containers that are still alive, before the youngest are looked at; then how many times of that for the older.
The youngest are a few MB at the most."""


def settle() -> None:
    """Called once, when everything is built and before anything is served: what is there now stays to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
