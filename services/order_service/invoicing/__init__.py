"""Invoices as PDF and HTML. The fonts are DejaVu Sans (fonts/LICENSE-DejaVu.txt), so that any name can be printed."""
