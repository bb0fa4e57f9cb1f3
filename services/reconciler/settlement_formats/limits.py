"""What a file may ask of the process that reads it."""

from __future__ import annotations

from dataclasses import dataclass

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """Beyond any of them the file is refused as a whole, but for a cell that is too long, which only costs its row."""

    max_bytes: int = 1024 * MiB
    """Of the file as it comes."""
    max_content_bytes: int = 4096 * MiB
    """After expansion."""
    max_expansion_ratio: int = 200
    """Content bytes for each packed byte, once a MiB has come out. Tables pack 5 to 50 times; a bomb 1 000 times."""
    max_rows: int = 20_000_000
    max_columns: int = 500
    max_cell_length: int = 32_767
    """Characters; a spreadsheet's own limit."""
    max_line_length: int = MiB
    """Characters of one physical line of a table."""
    max_depth: int = 32
    """Of a JSON document."""
    memory_bytes: int = 1024 * MiB
    """Address space of the reading process."""
