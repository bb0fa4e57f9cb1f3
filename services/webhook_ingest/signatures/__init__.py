"""Who really sent this delivery: an HMAC interpreter, providers as data, one file per scheme that needs code."""
