# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the writers of the guests left behind, and whether it is the state of one instant."""

from __future__ import annotations

import hashlib


def judge(first: str, second: str, boots: str) -> tuple[list[str], int]:
    """Problems with the logs of a writer that was interrupted by a backup, and the last number in it.

    :param first: log in the folder that is written first; :param second: in the other one.
    :param boots: ``boots.log``: the last numbers found in both, one line for each start of the writer.
    """
    last = boots.strip().splitlines()[-1].split() if boots.strip() else []
    if len(last) != 2 or not all(part.isdigit() for part in last):
        return ["the writer did not start in the restored guest"], 0
    one, two = (int(part) for part in last)
    problems = []
    if one - two not in (0, 1):
        problems.append(f"the disks are not of one instant: number {one} on the first, {two} on the second")
    for name, text, number in (("first", first, one), ("second", second, two)):
        problems.extend(f"the log on the {name} disk {problem}" for problem in _check(text, number))
    return problems, min(one, two)


def _check(text: str, number: int) -> list[str]:
    """Whether all lines up to ``number`` are there and whole."""
    if number < 1:
        return ["was empty when the guest was backed up"]
    lines = text.splitlines()
    for wanted in range(1, number + 1):
        expected = f"{wanted} {hashlib.md5(f'{wanted}{chr(10)}'.encode(), usedforsecurity=False).hexdigest()}"
        if wanted > len(lines) or lines[wanted - 1] != expected:
            found = repr(lines[wanted - 1]) if wanted <= len(lines) else "nothing"
            return [f"has {found} in place of line {wanted}"]
    return []
