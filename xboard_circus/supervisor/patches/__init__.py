"""Patch Circus: the only files that touch its private attributes, replace its methods, or read `stopping`, `started`.

Circus 0.19 is the last release and it is not maintained, so the list of what is replaced here is also the list of what
to check when a Python release breaks it. docs/patches.md is generated from it.
"""
