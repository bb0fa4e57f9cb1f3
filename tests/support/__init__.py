"""Real neighbours (PostgreSQL, RabbitMQ, Chromium) and fakes of the ports, for every test."""
