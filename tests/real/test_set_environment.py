"""`set NAME env {...}` over the endpoint changes the environment of the app, and nothing that its workers need."""

import json
from pathlib import Path

from .harness import FAST_RESTARTS, circusd, eventually


def test_workers_come_up_with_an_environment_that_was_set_over_the_endpoint(tmp_path: Path) -> None:
    """Given two workers, when their env is set to a few variables, then new workers serve with them, and with ours."""
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        old = c.wait_ready()
        kept = ("PYTHONPATH", "XBOARD_TEST", "PYTHONUNBUFFERED")
        env = {name: value for name, value in c.environ().items() if name in kept}
        env |= {"BACKEND_DIR": str(tmp_path / "web"), "GREETING": "hello"}

        c.do("set", name="web", options={"env": env}, waiting=True)
        eventually(lambda: len(set(c.wait_ready()) - set(old)) == 2, what="both are replaced")

        # An old one may still be draining, and answer what it had accepted.
        facts = eventually(lambda: [told for told in [json.loads(c.get("/facts"))] if "GREETING" in told["environ"]])[0]
        assert facts["environ"]["GREETING"] == "hello"
        assert facts["environ"]["XBOARD_WATCHER"] == "web"
        assert facts["environ"]["XBOARD_INSTANCE"] == c.instance
        assert c.failures() == []
