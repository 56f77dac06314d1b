# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``holdfast``: the node command. Exit status 0 done, 1 failed, 2 usage, 3 some guests failed."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import Any, NoReturn, Sequence

from . import cli_defaults, cli_files, cli_rules, cli_show, cli_store, cli_tell, cli_verify, cli_work
from .cli_output import say
from .errors import HoldfastError, UsageError
from .system.host import Host, Paths
from .system.trouble import explained

DESCRIPTION = "Back up and restore virtual machines and containers."


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are usage errors like all others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A misspelt option must not be taken for the beginning of another one, not by the subcommands either.
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def make_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="holdfast", description=DESCRIPTION)
    parser.add_argument("--root", default=os.environ.get("HOLDFAST_ROOT"), help="directory of the state directories")
    parser.add_argument("--node", dest="node_name", default=os.environ.get("HOLDFAST_NODE"), help="name of this node")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for part in (cli_work, cli_show, cli_store, cli_verify, cli_tell, cli_defaults, cli_rules, cli_files):
        part.register(verbs)
    return parser


def make_host(args: argparse.Namespace) -> Host:
    """The node that the arguments and the environment name."""
    return Host(
        node=args.node_name or platform.node().partition(".")[0],
        paths=Paths.under(args.root) if args.root else Paths(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        args, unknown = make_parser().parse_known_args(argv)
        if unknown:
            raise UsageError(f"unrecognized arguments: {' '.join(unknown)}", hint=f"see `holdfast {args.verb} --help`")
        status = int(args.handler(args, make_host(args)))
        sys.stdout.flush()
    except HoldfastError as exc:
        _complain(exc)
        return 2 if isinstance(exc, UsageError) else 1
    except BrokenPipeError:
        # The reader of our output went away; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        _complain(explained(exc))
        return 1
    except KeyboardInterrupt:
        say(sys.stderr, "error: interrupted")
        return 1
    return status


def _complain(exc: HoldfastError) -> None:
    say(sys.stderr, f"error: {exc.message}")
    if exc.hint:
        say(sys.stderr, f"hint: {exc.hint}")
