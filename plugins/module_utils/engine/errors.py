# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one error tree of the engine.

Every message says what was tried, on what, and why it failed; ``hint`` says what to do about it. Callers outside the
engine test ``code``, never the text.
"""

from __future__ import annotations

from typing import Any


class HoldfastError(Exception):
    """Base of all expected failures.

    :param message: what was tried, on what, and why it failed; one or more full lines.
    :param hint: what the operator can do about it; may be empty.
    :param result: what was achieved before the failure (a result's ``to_dict()``), for rescue logic.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "", result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.result = result

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(HoldfastError):
    """The request itself makes no sense: unknown guest, unknown option, options that exclude each other."""

    code = "usage"


class ConfigError(HoldfastError):
    """A definition file or property string cannot be understood or is not valid."""

    code = "config"


class StorageError(HoldfastError):
    """A storage is missing, not usable, full, or refused an operation."""

    code = "storage"


class GuestError(HoldfastError):
    """A guest could not be found, started, stopped, frozen, captured or restored."""

    code = "guest"


class ProtocolError(GuestError):
    """QMP, the guest agent or NBD did not answer, or answered with an error."""

    code = "protocol"


class LockError(HoldfastError):
    """A lock is held by a living owner."""

    code = "lock"


class IntegrityError(HoldfastError):
    """Archive bytes are damaged, incomplete, hostile, or not an archive at all."""

    code = "integrity"


class DependencyError(HoldfastError):
    """A library or program that the requested feature needs is not installed."""

    code = "dependency"


class HookError(HoldfastError):
    """A hook script cannot be run, or ended with an error."""

    code = "hook"


class NotificationError(HoldfastError):
    """Somebody could not be told about a run.

    :param temporary: it may well work when it is tried again.
    """

    code = "notification"

    def __init__(self, message: str, *, hint: str = "", temporary: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.temporary = temporary


class Interrupted(HoldfastError):
    """A signal asked the run to stop; everything was undone."""

    code = "interrupted"
