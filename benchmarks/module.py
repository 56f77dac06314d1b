# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module that only edits definitions costs on the node, against a module that does nothing.

    python benchmarks/module.py [--rounds 11]

Ansible packs the modules as for any task; then each packed file is run by the same interpreter, in turn. The clock
counts, since that is what users wait for; so nothing else should be at work on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, REPOSITORY)

from tests.integration.playbooks import environment  # noqa: E402

LIMIT = 0.15
BARE = """\
#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={"root": {"type": "path"}}).exit_json(changed=False)
"""
MODULES: dict[str, dict[str, object]] = {
    "bare": {},
    "holdfast.virt.backup_storage": {"name": "nas", "path": "/mnt/nas", "content": ["backup"]},
    "holdfast.virt.backup_job": {"id": "nightly", "schedule": "mon..fri 21:00", "all": True, "storage": "nas"},
}


def pack(module: str, arguments: dict[str, object], scratch: str) -> str:
    """Let Ansible run a module once and keep what it sent to the node; returns the packed file.

    :raises SystemExit: the module failed; its output is shown.
    """
    sent = os.path.join(scratch, "sent", module)
    env = {
        **environment(scratch),
        "ANSIBLE_KEEP_REMOTE_FILES": "1",
        "ANSIBLE_REMOTE_TMP": sent,
        "ANSIBLE_LIBRARY": os.path.join(scratch, "library"),
    }
    argv = [os.path.join(os.path.dirname(sys.executable), "ansible"), "localhost", "-c", "local", "-m", module]
    argv += ["-a", json.dumps({"root": os.path.join(scratch, "root"), **arguments})]
    done = subprocess.run(argv, env=env, cwd=scratch, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stdout}{done.stderr}")
    (packed,) = Path(sent).glob("*/AnsiballZ_*.py")
    return str(packed)


def seconds(packed: str) -> float:
    """How long the packed module takes to find nothing to change."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, packed], text=True, capture_output=True, check=True)
    took = time.monotonic() - began
    if json.loads(done.stdout)["changed"]:
        raise SystemExit(f"{packed} changed something again")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        os.mkdir(os.path.join(scratch, "library"))
        with open(os.path.join(scratch, "library", "bare.py"), "w", encoding="utf-8") as stream:
            stream.write(BARE)
        packed = {name: pack(name, arguments, scratch) for name, arguments in MODULES.items()}
        turns = [{name: seconds(path) for name, path in packed.items()} for _round in range(rounds)]
        sizes = {name: os.path.getsize(path) for name, path in packed.items()}
    worst = 0.0
    for name in MODULES:
        median = statistics.median(turn[name] for turn in turns)
        added = statistics.median(turn[name] - turn["bare"] for turn in turns)
        worst = max(worst, added)
        sys.stdout.write(f"{name:30} {median:6.3f} s, packed {sizes[name] >> 10:4} KiB, adds {added:6.3f} s\n")
    verdict = "within" if worst <= LIMIT else "OVER"
    sys.stdout.write(f"== the dearest adds {worst:.3f} s to a bare module: {verdict} the limit of {LIMIT} s\n")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
