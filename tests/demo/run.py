# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demonstration: real guests are backed up by playbooks while they write, restored, started, and compared."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, REPOSITORY)
sys.path.insert(0, os.path.join(REPOSITORY, "plugins", "module_utils"))

from tests.demo.verify import verify_container, verify_machine  # noqa: E402
from tests.integration.playbooks import environment, lab, playbook_command  # noqa: E402
from tests.lab.laboratory import CT, NODE, VM, Laboratory  # noqa: E402

TWINS = {100: 200, 101: 201, 102: 202}
"""The laboratory's guests and the ids under which they are restored."""
MODES = {(VM, "suspend"): 210, (VM, "stop"): 220, (CT, "stop"): 221}
"""Further modes in which guests are backed up, and the ids under which they are restored from these backups."""


class Broken(Exception):
    """The demonstration showed something that must not be."""


class Playbooks:
    """Runs the collection's playbooks against the laboratory.

    :param root: directory of the laboratory; :param scratch: directory for inventory and configuration.
    """

    def __init__(self, root: str, scratch: str) -> None:
        self.root = root
        self.scratch = scratch
        self.inventory = os.path.join(scratch, "inventory.yml")
        with open(self.inventory, "w", encoding="utf-8") as stream:
            json.dump({"all": {"hosts": {NODE: self.variables()}}}, stream, indent=2)

    def variables(self) -> dict[str, Any]:
        """What the inventory of a real cluster would say, with everything inside the laboratory's directory."""
        storage = os.path.join(self.root, "storage")
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "backup_become": False,
            "backup_node_install_packages": False,
            "backup_node_prefix": os.path.join(self.root, "opt"),
            "backup_node_command": os.path.join(self.root, "holdfast"),
            "backup_node_root": self.root,
            "backup_node_name": NODE,
            "backup_storages": [
                {"name": "local", "path": os.path.join(storage, "local"), "content": ["images", "rootdir"]},
                {"name": "btrfs", "path": os.path.join(storage, "btrfs"), "content": ["images", "rootdir"]},
                {
                    "name": "backup",
                    "path": os.path.join(storage, "backup"),
                    "content": ["backup"],
                    "prune_backups": {"keep_last": 1},
                },
            ],
            "backup_jobs": [
                {
                    "id": "nightly",
                    "schedule": "mon..fri 21:00",
                    "vmid": [str(vmid) for vmid in TWINS],
                    "storage": "backup",
                    "mode": "snapshot",
                    "compress": "zstd",
                    "zstd": 2,
                    "notes_template": "{guestname} on {node}",
                    "prune_backups": {"keep_last": 3},
                }
            ],
        }

    def play(self, name: str, *arguments: str, **variables: Any) -> int:
        """Run ``holdfast.virt.<name>`` and return the number of changes.

        :raises Broken: it failed; its output is shown.
        """
        command = [playbook_command(), f"holdfast.virt.{name}", "-i", self.inventory, *arguments]
        if variables:
            command += ["-e", json.dumps(variables)]
        shown = " ".join(
            [f"ansible-playbook holdfast.virt.{name}", *arguments, *(f"-e {k}={v}" for k, v in variables.items())]
        )
        sys.stdout.write(f"\n$ {shown}\n")
        sys.stdout.flush()
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=environment(self.scratch),
            cwd=self.scratch,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        recap = re.search(rf"^{NODE}\s+: ok=\d+\s+changed=(\d+).*failed=(\d+)", done.stdout, re.MULTILINE)
        if done.returncode or recap is None:
            sys.stdout.write(done.stdout)
            raise Broken(f"playbook {name} failed with exit status {done.returncode}")
        if "--diff" in arguments:
            sys.stdout.write("".join(f"  {line}\n" for line in done.stdout.splitlines() if line[:1] in ("+", "-")))
        sys.stdout.write(f"  changed={recap[1]}, {time.monotonic() - began:.1f} s\n")
        return int(recap[1])

    def last_run(self, kind: str) -> dict[str, Any]:
        """The result of the newest run of that kind, from the engine's records."""
        runs = os.path.join(self.root, "lib", "runs")
        for name in sorted(os.listdir(runs), reverse=True):
            with open(os.path.join(runs, name, "run.json"), encoding="utf-8") as stream:
                record = json.load(stream)
            if record.get("kind") == kind:
                return dict(record["result"])
        raise Broken(f"there is no record of a {kind}")


def expect(condition: bool, message: str) -> None:
    """:raises Broken: the condition does not hold."""
    if not condition:
        raise Broken(message)


def human(size: float | None) -> str:
    """Bytes for a table."""
    return "-" if size is None else f"{size / (1 << 20):.1f} MiB"


def window(timings: dict[str, Any]) -> str:
    """What the backup cost the guest."""
    parts = [
        f"{label} {timings[key] * 1000:.0f} ms"
        for key, label in (("freeze_seconds", "frozen"), ("pause_seconds", "paused"), ("downtime_seconds", "down"))
        if timings.get(key) is not None
    ]
    return ", ".join(parts) or "none"


def table(rows: list[list[str]]) -> str:
    """Rows in columns; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def demonstrate(root: str, scratch: str) -> None:
    """Everything between start and stop of the laboratory.

    :raises Broken: anything is not as it must be.
    """
    playbooks = Playbooks(root, scratch)
    playbooks.play("site")
    job = {"backup_job": "nightly"}
    playbooks.play("backup", "--check", "--diff", **job)
    expect(not archives(root), "the check run wrote archives")
    expect(playbooks.play("backup", **job) == 1, "the backup changed nothing")
    backup = playbooks.last_run("backup")
    before = archives(root)
    expect(len(before) == len(TWINS), f"there are {len(before)} archives for {len(TWINS)} guests")
    expect(playbooks.play("backup", backup_max_age="1h", **job) == 0, "the second backup run changed something")
    expect(archives(root) == before, "the second backup run wrote archives")
    playbooks.play("backup", backup_force=True, **job)
    expect(playbooks.play("prune", "--check", "--diff", backup_storage="backup") == 1, "nothing would be pruned")
    expect(len(archives(root)) == 2 * len(TWINS), "the check run of the retention removed archives")
    shown = [
        (guest, twin, restore(playbooks, guest["vmid"], twin)) for guest, twin in zip(backup["guests"], TWINS.values())
    ]
    for (vmid, mode), twin in MODES.items():
        options = {"mode": mode, "compress": "zstd"}
        playbooks.play("backup", backup_vmid=[vmid], backup_storage="backup", backup_force=True, backup_options=options)
        (guest,) = playbooks.last_run("backup")["guests"]
        expect(guest["mode"] == mode, f"guest {vmid} was backed up in mode {guest['mode']}, not {mode}")
        shown.append((guest, twin, restore(playbooks, vmid, twin)))
    Laboratory(root).wait_until_writing(VM)
    report(root, shown)


def restore(playbooks: Playbooks, vmid: int, twin: int) -> dict[str, Any]:
    """Restore a guest's newest archive under another id and start it; returns the engine's result."""
    playbooks.play(
        "restore",
        restore_archive=f"backup:latest/{vmid}",
        restore_vmid=twin,
        restore_unique=True,
        restore_start=True,
        restore_trust_config=True,
    )
    result = playbooks.last_run("restore")
    expect(result["started"], f"guest {twin} did not start")
    return result


def archives(root: str) -> list[str]:
    """Names of the archives on the backup storage."""
    folder = os.path.join(root, "storage", "backup", "dump")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.endswith((".vma.zst", ".tar.zst")))


def report(root: str, shown: list[tuple[dict[str, Any], int, dict[str, Any]]]) -> None:
    """Compare every restored guest with its original, and show the table.

    :param shown: backups, ids under which they were restored, and restores.
    :raises Broken: a guest differs.
    """
    rows = [["guest", "mode", "size", "archive", "took", "MiB/s", "interruption", "restored", "verified"]]
    problems: list[str] = []
    for guest, twin, restored in shown:
        vmid = guest["vmid"]
        check = verify_machine if guest["kind"] == "qemu" else verify_container
        found, summary = check(root, vmid, twin)
        problems.extend(f"guest {twin}: {problem}" for problem in found)
        rows.append(
            [
                f"{guest['kind']} {vmid} {guest['name']}",
                str(guest["mode"]),
                human(guest["size"]),
                human(guest["archive_size"]),
                f"{guest['duration']:.1f} s",
                f"{(guest['speed'] or 0) / (1 << 20):.0f}",
                window(guest["timings"]),
                f"{twin} in {restored['duration']:.1f} s",
                summary if not found else "DIFFERS",
            ]
        )
    sys.stdout.write(f"\n{table(rows)}\n\n")
    if problems:
        raise Broken("\n".join(problems))


KEPT = """
The laboratory is still up below {root}. Try for example
  HOLDFAST_ROOT={root} HOLDFAST_NODE={node} ./dev holdfast guests
  HOLDFAST_ROOT={root} HOLDFAST_NODE={node} ./dev holdfast archives
  HOLDFAST_ROOT={root} HOLDFAST_NODE={node} ./dev holdfast restore backup:latest/101 301 --unique --start
and stop it by
  {python} -m tests.lab down --root {root}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the laboratory running")
    parser.add_argument("--root", help="directory of the laboratory (default: a temporary one)")
    options = parser.parse_args()
    began = time.monotonic()
    root = os.path.abspath(options.root) if options.root else tempfile.mkdtemp(prefix="holdfast-demo-")
    verdict = 0
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-ansible-") as scratch:
        try:
            lab("up", root)
            demonstrate(root, scratch)
            sys.stdout.write(
                f"Verified: every guest was restored as it was backed up ({time.monotonic() - began:.0f} s).\n"
            )
        except (Broken, subprocess.CalledProcessError) as exc:
            sys.stdout.write(f"\nNOT VERIFIED: {exc}\n")
            verdict = 1
        finally:
            sys.stdout.flush()
            if options.keep:
                sys.stdout.write(KEPT.format(root=root, node=NODE, python=os.path.relpath(sys.executable, REPOSITORY)))
            else:
                lab("down", root)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
