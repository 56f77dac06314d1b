# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing a definition file: planned first, so that a diff can show it, and written only on what it was planned on."""

from __future__ import annotations

import os
from typing import Any, Sequence

from ..errors import ConfigError
from ..settings.section import Finding, Section, about, check_writable, edit_sections, write_sections
from ..system.files import read_text, write_atomic
from ..system.host import Host
from ..system.locks import hold
from ..system.secrets import remove_secret, write_secret
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


def change_section(
    *,
    path: str,
    base: str | None,
    sections: Sequence[Section],
    findings: Sequence[Finding],
    name: str,
    new: Section | None,
    same: bool,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> Change:
    """A change of one section of a file; other parameters as of :func:`make_change`.

    :param sections: all that the file has; :param findings: what in it has no effect.
    :param new: the section as it is to be, ``None`` to remove it; :param same: it means what the old one does.
    :raises ConfigError: the file holds lines that writing it would lose.
    """
    old = find_section(sections, name)
    if same and not about(findings, name):
        # Written by hand in another order, but the same: it stays as it is.
        new = old
    if new != old:
        check_writable(findings, path)
    return make_change(
        path=path,
        base=base,
        before=before,
        after=after,
        before_text=write_sections([old] if old is not None else []),
        after_text=write_sections([new] if new is not None else []),
        text=edit_sections(base or "", {name: new}) if new != old else base or "",
    )


def find_section(sections: Sequence[Section], name: str) -> Section | None:
    """The section of that name, of whatever type."""
    return next((section for section in sections if section.id == name), None)


def apply_change(host: Host, change: Change) -> None:
    """Write a planned change; a definition that needs a secret never stands there without it.

    :raises ConfigError: somebody else changed the file meanwhile.
    """
    if not change.changed:
        return
    name = os.path.basename(change.path)
    with hold(os.path.join(host.paths.locks, f"{name}.lock"), f"change of {change.path}", wait=LOCK_SECONDS):
        if read_text(change.path) != change.base:
            raise ConfigError(f"cannot write {change.path}: it was changed in the meantime", hint="try again")
        if change.secret is not None and change.secret.text is not None:
            write_secret(change.secret.path, change.secret.text)
        if change.before_text != change.after_text:
            # For a secret alone the file is not written anew: lines that nobody understands would be lost.
            write_atomic(change.path, change.text)
        if change.secret is not None and change.secret.text is None:
            remove_secret(change.secret.path)


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
