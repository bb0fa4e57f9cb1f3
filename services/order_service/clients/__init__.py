"""The outside parties that order_service talks to, as adapters of use_cases/ports.py."""
