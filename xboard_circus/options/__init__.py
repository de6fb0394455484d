"""Define and parse the options of an ini file."""
