"""Read the facts of this host: processes, sockets, listeners, and our own runtime folder. No decisions."""
