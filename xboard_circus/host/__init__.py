"""What this host has, read and never decided on: processes, sockets, who listens, and our own runtime folder."""
