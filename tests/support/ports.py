"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_LOWEST = 11_000  # browsers refuse 10 080
_KERNELS_OWN = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody listens on, and that nobody but who asked for it will.

    The kernel picks its own ports, for connections and for whoever binds to port 0, from a range; this one is not from
    that range, and no port is given out twice. Each process begins somewhere else.
    """
    return next(port for port in _ports if _is_free(port))


def free_ports(count: int) -> list[int]:
    """Different free ports."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _below_the_kernels_own() -> Iterator[int]:
    highest = int(_KERNELS_OWN.read_text().split()[0]) if _KERNELS_OWN.exists() else 32_768
    span = max(highest - _LOWEST, 1_000)
    begin = os.getpid() * 997 % span  # processes that were started one after the other are far apart
    return itertools.cycle(_LOWEST + (begin + step) % span for step in range(span))


_ports = _below_the_kernels_own()
