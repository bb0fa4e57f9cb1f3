"""Gateways to develop and test against: wire formats, hosted pages, webhooks, and books of their own."""
