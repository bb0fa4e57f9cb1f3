"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nobody listens on now; the kernel hands out others first, so it stays free for a while."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different free ports, found while all of them are held."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
