# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is told about a backup run: vzdump's ``mailto``, or the targets of ``notifications.cfg``, each by its rule."""

from __future__ import annotations

from typing import Any, Mapping

RULES = ("always", "failure", "change")


def concerns(rule: str, *, failed: bool, changed: bool) -> bool:
    """Whether somebody with that rule is told.

    :param failed: something went wrong in the run; :param changed: other than in the run of that job before.
    """
    return {"always": True, "failure": failed, "change": changed}[rule]


def uses_mailto(options: Mapping[str, Any]) -> bool:
    """Whether the mails of ``mailto`` take the place of the targets, as vzdump's ``notification-mode`` says."""
    mode = options.get("notification_mode", "auto")
    return mode == "legacy-sendmail" or (mode == "auto" and bool(options.get("mailto")))
