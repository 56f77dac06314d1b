# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the tests that need another kernel inside a node: ``python -m tests.nodes [PYTEST ARGUMENTS]``."""

from __future__ import annotations

import os
import shlex
import sys

import qemu.qmp

from tests.nodes.node import REPOSITORY, run_job

TIMEOUT = 7200
PYTEST = ("python3", "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=600")
TESTS = "tests/nodes/inside"


def _libraries() -> str:
    """Shell lines that give the node qemu.qmp, which no package has, from this checkout's environment."""
    folder = os.path.dirname(os.path.dirname(str(qemu.qmp.__file__)))
    place = os.path.join("/repository", os.path.relpath(folder, REPOSITORY))
    return f"mkdir /run/python\nln -s {shlex.quote(place)} /run/python/qemu\nexport PYTHONPATH=/run/python\n"


def main() -> int:
    chosen = sys.argv[1:]
    if not any(TESTS in argument for argument in chosen):
        chosen.append(TESTS)
    ended = run_job(f"{_libraries()}exec {shlex.join([*PYTEST, *chosen])}\n", timeout=TIMEOUT)
    sys.stdout.write(ended.log)
    if ended.status is None:
        sys.stdout.write(f"the node did not finish its job within {TIMEOUT} s; its console:\n{ended.console}\n")
        return 1
    return ended.status


if __name__ == "__main__":
    sys.exit(main())
