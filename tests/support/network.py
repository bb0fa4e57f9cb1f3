"""Sockets of the test process reach this machine only (style.md §12).

An audit hook sees every connection that Python makes, sync or async, whatever the library; it cannot be taken out
again, so it is installed once per process. Databases and brokers named by the environment are let through too.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from functools import cache
from urllib.parse import urlsplit


class OutsideWorldRefused(RuntimeError):
    """A test tried to reach another machine: pass a fake transport instead."""


def pytest_configure() -> None:
    _install()


@cache
def _install() -> None:
    allowed = _hosts_named_by_environment()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            if isinstance(address, tuple) and isinstance(address[0], str):
                _require_local(address[0], allowed)
        elif event == "socket.getaddrinfo":
            host = arguments[0]
            _require_local(host.decode() if isinstance(host, bytes) else host, allowed)

    sys.addaudithook(watch)


def _hosts_named_by_environment() -> set[str]:
    names = ("TEST_DATABASE_URL", "RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL")
    hosts = {urlsplit(os.environ.get(name, "")).hostname or "" for name in names} - {""}
    if not hosts:
        return hosts
    import socket

    addresses = {str(found[4][0]) for host in hosts for found in socket.getaddrinfo(host, None)}
    return hosts | addresses


def _require_local(host: object, allowed: set[str]) -> None:
    if host in (None, "", "localhost", "*") or host in allowed:
        return
    try:
        if ipaddress.ip_address(str(host).partition("%")[0]).is_loopback:
            return
    except ValueError:
        pass  # a name of another machine
    raise OutsideWorldRefused(f"tests reach this machine only, not {host!r}; pass a fake transport instead.")
