"""No event reaches this service: what it knows comes from gateways over HTTP."""
