"""Takes gateways' webhooks in: verified over raw bytes, stored with its event in one commit, then acknowledged."""
