"""Replace a worker that still runs by a new one."""
