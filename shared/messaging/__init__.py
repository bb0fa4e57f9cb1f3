"""Events between services: the bus port and its two implementations, the outbox relay, the consumer's inbox."""
