"""The sandbox's tables and every query on them."""
