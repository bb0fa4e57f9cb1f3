"""What callers, buyers, tests and time do to the sandbox."""
