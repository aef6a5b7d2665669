"""``mnist-bench completion bash|zsh|fish``: the script by which a shell completes commands, flags, files and runs."""

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
# What lists the values of an argument, by what --help calls it.
LISTINGS = {
    "RUN": "ls results 2>/dev/null",
    "CHECK": "ls results/checks 2>/dev/null",
    "GIT_REF": "git for-each-ref --format='%(refname:short)' 2>/dev/null",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        'bash: eval "$(mnist-bench completion bash)" in ~/.bashrc. zsh: mnist-bench completion zsh > '
        '"${fpath[1]}/_mnist-bench". fish: mnist-bench completion fish > ~/.config/fish/completions/mnist-bench.fish.'
    )
    parser.add_argument("shell", choices=SHELLS, help="for which shell")


def execute(args: argparse.Namespace) -> int:
    import shtab

    from mnist_bench.cli import COMMANDS, build_parser

    parser = build_parser(*COMMANDS)
    values = {name: shtab.cmd(command) for name, command in LISTINGS.items()}
    values |= {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "PATH": shtab.FILE, "MATRIX": shtab.glob("*.yaml", "*.yml")}
    for action in _actions(parser):
        if isinstance(action.metavar, str) and (found := values.get(action.metavar.partition("|")[0])):
            vars(action)["complete"] = found  # where shtab looks
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """What a parser and those below it take."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
