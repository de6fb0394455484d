"""Implement the sample backend: boards in SQLite and uploads in a folder; `xboard_circus.app` serves them."""
