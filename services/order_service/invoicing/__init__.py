"""Invoices as PDF and HTML.

The fonts are DejaVu Sans (fonts/LICENSE-DejaVu.txt): Latin, Greek, Cyrillic, Arabic, Hebrew
and more, but neither Chinese, Japanese, Korean nor Indic scripts, which only the HTML form shows."""
