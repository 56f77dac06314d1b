# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The counts of several test runs in one line, from their JUnit files.

    python tests/totals.py FILE...

A run that left no file counts as one failure.
"""

from __future__ import annotations

import os
import sys
from xml.etree import ElementTree


def counts(path: str) -> tuple[int, int, int]:
    """How many tests of a run passed, failed and were skipped."""
    if not os.path.exists(path):
        return 0, 1, 0
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(paths: list[str]) -> int:
    passed, failed, skipped = (sum(column) for column in zip(*map(counts, paths)))
    sys.stdout.write(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "") + "\n")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
