"""The only files that touch Circus's insides: private attributes, replaced methods, `stopping`, `started`.

Circus 0.19 is the last release and it is not maintained, so the list of what is replaced here is also the list of what
has to be looked at when a Python release breaks it. docs/patches.md is generated from it.
"""
