"""``payrail``: the command line of every part."""

from __future__ import annotations

from deploy.cli.app import main

__all__ = ["main"]
