"""Decisions, and nothing but decisions: may it restart, is it sick, whose port is it, why did it die.

No clock, no I/O, no logging, no Circus: facts and the time come in as arguments, a verdict with its
reason goes out, and the caller does what it says. ``tests/test_architecture.py`` reads the imports.
"""
