"""What `payrail gateway new` copies: a small gateway that works, called New Pay. It is found by nobody here."""
