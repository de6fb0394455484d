"""What circusd answers, publishes and is asked for."""
