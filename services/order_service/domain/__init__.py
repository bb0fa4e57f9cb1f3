"""Rules about orders, stock and their states: pure Python."""
