"""Make decisions: restart budget, health, port owner, cause of death. No effects.

No clock, no I/O, no logging, no Circus: facts and the time come in as arguments, a verdict with its
reason goes out, and the caller does what it says. ``tests/test_architecture.py`` reads the imports.
"""
