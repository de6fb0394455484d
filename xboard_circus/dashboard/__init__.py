"""The page on which the backend is seen and steered: FastAPI, Jinja2 and server-sent events, no build step.

`poller` asks each circusd in the background and keeps what it said, with its age; everything that a browser asks for is
answered from there, so the page is as quick when circusd hangs as when it does not.
"""
