# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup and restore of a stopped container's tree: the engine against tar and zstd."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from data import MIB, tree
from engine.capture.ct_archive import CapturedContainer
from engine.capture.ct_restore import extract_ct
from engine.capture.ct_trees import Trees
from engine.capture.model import Timings
from engine.formats.cttar import CONFIG_MEMBER, FIREWALL_MEMBER, create_argv, extract_argv
from engine.stream.progress import Progress
from engine.stream.sink import open_sink
from engine.stream.source import open_source
from engine.system.report import SilentReporter
from measure import Step, apart, compare, function, remove, say, shell


def backup(workdir: str, archive: str, threads: int) -> None:
    """What a task does once the container is captured."""
    members = [CONFIG_MEMBER, FIREWALL_MEMBER]
    container = CapturedContainer("stop", 101, Timings(), [], workdir, members, (), (), Trees(["./"]))
    progress = Progress(0, SilentReporter())
    with open_sink(archive, "zst", threads=threads, on_written=progress.set_written) as sink:
        container.write_to(sink, progress)


def restore(archive: str, root: str) -> None:
    """What a task does once the volumes are mounted, and the flush to disk."""
    report = SilentReporter()
    with open_source(archive) as source:
        extract_ct(source, root, idmaps=(), unprivileged=False, progress=Progress(0, report), report=report)
    subprocess.run(["sync", "-f", root], check=True)


def make_config(folder: str) -> str:
    """The folder ``config`` with the first members of an archive."""
    config_dir = os.path.join(folder, "config")
    os.makedirs(os.path.join(config_dir, "etc/vzdump"))
    for name in (CONFIG_MEMBER, FIREWALL_MEMBER):
        with open(os.path.join(config_dir, name), "w") as file:
            file.write("hostname: bench\n")
    return config_dir


def compare_backups(folder: str, config_dir: str, root: str, threads: int, rounds: int) -> tuple[str, str]:
    """The engine against tar and zstd in turn, on the tree ``root``; returns the paths of both archives."""
    ours, theirs = (os.path.join(folder, name) for name in ("ours.tar.zst", "theirs.tar.zst"))
    create = shlex.join(create_argv(config_dir=config_dir, data_root=root, sources=["./"]))
    compare(
        "container backup",
        rounds,
        1.05,
        Step("engine", lambda: function(lambda: backup(folder, ours, threads))),
        Step(
            "tar | zstd",
            lambda: shell(f"{create} 2>/dev/null | zstd -q -f -T{threads} -1 -o {theirs} && sync {theirs}"),
        ),
    )
    say(f"   archives of {os.path.getsize(ours) / MIB:.0f} and {os.path.getsize(theirs) / MIB:.0f} MiB")
    return ours, theirs


def main(folder: str, mib: int, threads: int, rounds: int) -> None:
    config_dir, data_root = make_config(folder), os.path.join(folder, "root")
    new, plain = (os.path.join(folder, name) for name in ("ours", "theirs"))
    apart(lambda: tree(data_root, mib * MIB))
    ours, theirs = compare_backups(folder, config_dir, data_root, threads, rounds)
    extract = shlex.join(extract_argv(plain))
    compare(
        "container restore",
        rounds,
        1.0,
        Step("engine", lambda: function(lambda: restore(ours, new)), lambda: _empty(new)),
        Step(
            "zstd -d | tar",
            lambda: shell(f"zstd -q -d -c {theirs} | {extract} 2>/dev/null && sync -f {plain}"),
            lambda: _empty(plain),
        ),
    )
    for restored in (new, plain):
        shutil.rmtree(os.path.join(restored, "etc"))
        subprocess.run(["diff", "-r", "--no-dereference", data_root, restored], check=True)
    say("   both restored trees equal the original (diff -r)")


def _empty(folder: str) -> None:
    remove(folder)
    os.mkdir(folder)
