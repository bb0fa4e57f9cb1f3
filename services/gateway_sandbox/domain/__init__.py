"""What the sandbox's gateways keep in their books, and the rules of moving money there. Pure Python."""
