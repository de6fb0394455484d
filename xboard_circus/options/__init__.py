"""The options of an ini file: which there are, and how one is read."""
