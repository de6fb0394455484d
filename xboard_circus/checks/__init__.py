"""Check an ini file: rules for each kind of fact, and `check`, which runs them."""
