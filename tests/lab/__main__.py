# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python -m tests.lab up|down|status [--root DIR]``"""

from __future__ import annotations

import argparse
import os
import sys
import time

from .laboratory import Laboratory

DEFAULT_ROOT = os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holdfast-lab", "running"
)


def main() -> int:
    parser = argparse.ArgumentParser(description="The laboratory: a node with real guests below one directory.")
    parser.add_argument("verb", choices=["up", "down", "status"])
    parser.add_argument("--root", default=DEFAULT_ROOT, help=f"its directory (default: {DEFAULT_ROOT})")
    options = parser.parse_args()
    laboratory = Laboratory(options.root)
    began = time.monotonic()
    try:
        if options.verb == "up":
            laboratory.up()
        elif options.verb == "down":
            laboratory.down()
        if options.verb == "status" or options.verb == "up":
            sys.stdout.write(laboratory.holdfast("guests"))
    except RuntimeError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    sys.stdout.write(f"==> laboratory {options.verb}: {options.root} ({time.monotonic() - began:.1f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
