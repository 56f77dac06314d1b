# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands for looking into files: VMA archives and config files."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from .cli_output import human, local_time, put_json, put_table, reporter, say
from .errors import StorageError
from .system.trouble import refusal

if TYPE_CHECKING:
    from .system.host import Host


def register(verbs: Any) -> None:
    """Add these commands."""
    vma = verbs.add_parser("vma", help="look into a VM archive")
    vma.add_argument("action", choices=["info", "verify", "extract"])
    vma.add_argument("file")
    vma.add_argument("folder", nargs="?", help="where extract puts the config files and raw disk images")
    vma.add_argument("--json", action="store_true")
    vma.set_defaults(handler=vma_file)
    config = verbs.add_parser("config", help="read a config file")
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    command = actions.add_parser("parse", help="show what the engine understands, as JSON")
    command.add_argument("--kind", choices=["storage", "jobs", "vzdump"], required=True)
    command.add_argument("file", help="path, or - for standard input")
    command.set_defaults(handler=parse_config)


def parse_config(args: argparse.Namespace, host: Host) -> int:
    """``holdfast config parse``"""
    from .tasks.definitions import explain_config

    known, warnings = explain_config(args.kind, _read(args.file))
    put_json(known)
    for warning in warnings:
        say(sys.stderr, f"warning: {warning}")
    return 0


def _read(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError as exc:
        raise refusal(StorageError, f"read {path}", exc, path) from exc


def vma_file(args: argparse.Namespace, host: Host) -> int:
    """``holdfast vma``"""
    from .tasks.files import extract_vma_file, verify_vma, vma_info

    if args.action == "info":
        info = vma_info(args.file)
    elif args.action == "verify":
        info = verify_vma(args.file, reporter(args.json))
    else:
        folder = args.folder or os.path.basename(args.file).partition(".")[0]
        info = extract_vma_file(args.file, folder, reporter(args.json))
    if args.json:
        put_json(info)
        return 0
    say(sys.stdout, f"uuid {info['uuid']}, made {local_time(info['time_epoch'])}")
    put_table(["CONFIG", "SIZE"], [[config["name"], human(config["size"])] for config in info["configs"]])
    put_table(["DEVICE", "SIZE"], [[device["name"], human(device["size"])] for device in info["devices"]])
    if args.action == "verify":
        say(sys.stdout, "the archive is complete and undamaged")
    return 0
