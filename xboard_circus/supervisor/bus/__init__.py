"""Answer circusd's commands and publish its state and events."""
