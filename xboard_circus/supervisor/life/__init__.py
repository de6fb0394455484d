"""One worker from its spawn to its end."""
