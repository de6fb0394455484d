"""Handle one worker from its spawn to its end."""
