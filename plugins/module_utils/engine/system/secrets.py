# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets in files of their own that only root reads."""

from __future__ import annotations

import contextlib
import os
import stat

from ..errors import ConfigError
from .files import fsync_dir, make_folders, write_atomic
from .trouble import os_error_hint, tried


def read_secret(path: str) -> str | None:
    """The one line of a file that nobody else can read; ``None`` if it does not exist.

    :raises ConfigError: others could read or have written it, or it holds something else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"cannot read the secret in {path}: {exc.strerror}", hint=os_error_hint(exc, path)) from exc
    with os.fdopen(fd, "rb") as stream:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o077:
            raise ConfigError(
                f"the secret in {path} is not used: the file is not root's alone",
                hint=f"chown root {path}; chmod 600 {path}; and change the secret, which others may know",
            )
        raw = stream.read(65537)
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or len(raw) > 65536 or not text.isprintable():
        raise ConfigError(f"{path} does not hold a secret", hint="put one line of text into it")
    return text


def write_secret(path: str, text: str) -> None:
    """Replace the secret; at no time can anybody but root read it."""
    make_folders(os.path.dirname(path), 0o700)
    write_atomic(path, f"{text}\n", 0o600)


def remove_secret(path: str) -> None:
    """Remove the secret, if there is one."""
    with tried("remove", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        fsync_dir(os.path.dirname(path))
