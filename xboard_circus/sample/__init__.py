"""The sample backend's parts: boards in SQLite and uploads in a folder; `xboard_circus.app` puts them together."""
