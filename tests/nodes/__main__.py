# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the tests of volumes that need device-mapper or ZFS inside a node: ``python -m tests.nodes``."""

from __future__ import annotations

import sys

from tests.nodes.node import run_job

TIMEOUT = 3600
JOB = """\
exec python3 -m pytest -q -rA -p no:cacheprovider -o faulthandler_timeout=600 tests/nodes/inside
"""


def main() -> int:
    ended = run_job(JOB, timeout=TIMEOUT)
    sys.stdout.write(ended.log)
    if ended.status is None:
        sys.stdout.write(f"the node did not finish its job within {TIMEOUT} s; its console:\n{ended.console}\n")
        return 1
    return ended.status


if __name__ == "__main__":
    sys.exit(main())
