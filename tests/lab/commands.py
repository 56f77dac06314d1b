# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running programs for the laboratory."""

from __future__ import annotations

import subprocess


def run(*argv: str, cwd: str | None = None, check: bool = True) -> str:
    """Run a program to its end and return what it wrote; its complaints are part of the error.

    :raises RuntimeError: it failed.
    """
    done = subprocess.run(argv, cwd=cwd, text=True, capture_output=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed with exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
