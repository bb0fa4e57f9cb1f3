"""HTTP: the gateways' own APIs, the hosted checkout page and the control API."""
