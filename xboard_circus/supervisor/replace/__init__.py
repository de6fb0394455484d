"""A new worker in the place of one that still runs."""
