# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removes old versions of the engine: all but the current one, the one before it, and those that a command works with.

Runs on the node. Writes the versions that it removed to standard output.
"""

from __future__ import annotations

import os
import shutil
import sys


def at_work(folder: str) -> bool:
    """Whether a process has the folder among its arguments, as the node's command has."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                words = stream.read().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in words:
            return True
    return False


def superfluous(prefix: str) -> list[str]:
    """Folders of the versions that nobody needs any more, the oldest first."""
    current = os.path.realpath(os.path.join(prefix, "lib"))
    versions = os.path.join(os.path.realpath(prefix), "versions")
    folders = (os.path.join(versions, name) for name in os.listdir(versions))
    others = sorted((folder for folder in folders if folder != current), key=os.path.getmtime)
    return [folder for folder in others[:-1] if not at_work(folder)]


def main() -> None:
    """Argument: the prefix of the installation."""
    for folder in superfluous(sys.argv[1]):
        shutil.rmtree(folder)
        sys.stdout.write(folder + "\n")


if __name__ == "__main__":
    main()
