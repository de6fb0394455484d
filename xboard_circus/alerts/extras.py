"""How the packages are installed that some kinds of alerts need."""

from importlib import metadata


def installed_by(extra: str) -> str:
    """Return the command, with the packages' own names: what is called as ours on an index may be anybody's."""
    required = metadata.requires("xboard-circus") or ()
    wanted = [f"'{each.split(';')[0].strip()}'" for each in required if each.endswith(f'extra == "{extra}"')]
    return f"pip install {' '.join(wanted)}"
