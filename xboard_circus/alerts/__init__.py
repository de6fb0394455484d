"""Send alerts: render their text (`text`, `shapes`), and deliver it (`webhook`, `smtp`, `command`).

A sink delivers one message or raises `AlertError`, within a deadline of its own. `delivery` runs each in a thread.
"""
