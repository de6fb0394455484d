"""Serve the page that shows and operates the backend: FastAPI, Jinja2 and server-sent events, no build step.

`poller` polls each circusd in the background and keeps its last answer with its age; every request is answered from
there, so the page is as quick when circusd hangs as when it does not.
"""
