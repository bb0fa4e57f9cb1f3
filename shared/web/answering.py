"""An extension of ASGI between our server protocol and the few endpoints that build their answers by hand."""

from __future__ import annotations

from collections.abc import Callable

ANSWER = "payrail.answer"
"""Its name in ``scope["extensions"]``; another server does not have it."""

DirectAnswer = Callable[[int, bytes, bytes], bool]
"""Status, header lines (each with its line end; nothing of the client's unchecked) and the whole body, written at once.
False when that is not possible now: then the answer goes by ``send``."""
