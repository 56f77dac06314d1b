# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing a definition file: planned first, so that a diff can show it, and written only on what it was planned on."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ..errors import ConfigError
from ..system.files import read_text, write_atomic
from ..system.host import Host
from ..system.locks import hold
from .results import Change

LOCK_SECONDS = 10.0


def make_change(
    *,
    path: str,
    base: str | None,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    before_text: str,
    after_text: str,
    text: str,
    warnings: tuple[str, ...] = (),
) -> Change:
    """A change of a file; see :class:`.results.Change` for the parameters.

    :param base: the very text that the change was made from: what others wrote after it was read must not be lost.
    """
    return Change(path, before, after, before_text, after_text, text, warnings, base)


def apply_change(host: Host, change: Change) -> None:
    """Write a planned change.

    :raises ConfigError: somebody else changed the file meanwhile.
    """
    if not change.changed:
        return
    name = os.path.basename(change.path)
    with hold(os.path.join(host.paths.locks, f"{name}.lock"), f"change of {change.path}", wait=LOCK_SECONDS):
        if read_text(change.path) != change.base:
            raise ConfigError(f"cannot write {change.path}: it was changed in the meantime", hint="try again")
        if change.secret is not None and change.secret.text is not None:
            os.makedirs(os.path.dirname(change.secret.path), mode=0o700, exist_ok=True)
            write_atomic(change.secret.path, change.secret.text, 0o600)
        write_atomic(change.path, change.text)
        if change.secret is not None and change.secret.text is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(change.secret.path)


def config_text(value: Any) -> str:
    """A plain value as definition files write it: lists with commas, mappings as property strings."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, dict):
        given = {str(key).replace("_", "-"): item for key, item in value.items() if item is not None}
        return ",".join(f"{key}={config_text(item)}" for key, item in given.items())
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)
