"""Define the command completion: print what makes a shell complete commands, options and the names of watchers."""

import click
from click.shell_completion import get_completion_class

PROGRAM, VARIABLE = "xboard-circus", "_XBOARD_CIRCUS_COMPLETE"
INSTALLED = {
    "bash": "~/.local/share/bash-completion/completions/xboard-circus",
    "zsh": "~/.zfunc/_xboard-circus",
    "fish": "~/.config/fish/completions/xboard-circus.fish",
}
MORE = {"zsh": "; put `fpath+=~/.zfunc` before `compinit` into ~/.zshrc"}


@click.command()
@click.argument("shell", type=click.Choice([*INSTALLED]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL; how to install it is printed on stderr."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
    file = INSTALLED[shell]
    folder = file.rpartition("/")[0]
    install = f"mkdir -p {folder} && {PROGRAM} completion {shell} > {file}"
    click.echo(f"to install it: {install}{MORE.get(shell, '')}; then open a new shell", err=True)
