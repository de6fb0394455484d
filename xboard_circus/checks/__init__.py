"""What is wrong, or will go wrong, with an ini file: rules, and `check`, which asks them."""
