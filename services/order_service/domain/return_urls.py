"""Where a browser may be sent after the gateway's page: the shop's own origins, compared exactly (SEC-14, XS11).

Browsers read URLs more generously than any parser: they drop tabs, take backslashes for slashes and skip leading
spaces. So whatever a browser might read differently is refused before the parser sees it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

MAX_URL_LENGTH = 2000

# RFC 3986's characters, without the backslash, quotes, braces, spaces, controls and anything that is not ASCII.
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
_HOST = r"(?P<host>[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
_AUTHORITY = re.compile(_HOST + r"(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORT = {"http": "80", "https": "443"}


def origin_of(url: str) -> str | None:
    """``scheme://host[:port]`` in the form of RFC 6454, or None for what is not a plain absolute http(s) URL."""
    if len(url) > MAX_URL_LENGTH or not _URL.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORT or not url[len(scheme) :].startswith("://"):
        return None
    authority = _AUTHORITY.fullmatch(parts.netloc.lower())
    if authority is None or ".." in authority["host"]:
        return None
    port = authority["port"]
    if port is not None and not 0 < int(port) <= 65535:
        return None
    suffix = "" if port is None or port == _DEFAULT_PORT[scheme] else f":{int(port)}"
    return f"{scheme}://{authority['host']}{suffix}"


def is_allowed_return_url(url: str, allowed_origins: Collection[str], *, allow_insecure_loopback: bool) -> bool:
    """Whether the shop itself answers there. ``allowed_origins`` are canonical; http for loopback only."""
    origin = origin_of(url)
    if origin is None or origin not in allowed_origins:
        return False
    if origin.startswith("https://"):
        return True
    host = (
        origin.removeprefix("http://").rsplit(":", 1)[0] if not origin.endswith("]") else origin.removeprefix("http://")
    )
    return allow_insecure_loopback and host in _LOOPBACK
