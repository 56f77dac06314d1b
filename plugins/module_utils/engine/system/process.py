# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running other programs: argument lists, never shells; output in the C locale; errors that name the command."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import Mapping, Sequence

from ..errors import DependencyError, HoldfastError


@dataclass(frozen=True)
class Completed:
    """What a finished command left: exit status and decoded output (surrogateescape, so odd names survive)."""

    returncode: int
    stdout: str
    stderr: str


def command_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment with a fixed locale, so that output can be parsed."""
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def describe(argv: Sequence[str]) -> str:
    """The command as a person would type it, for messages and logs."""
    return " ".join(shlex.quote(part) for part in argv)


def bound(argv: Sequence[str], *, hint: str = "") -> list[str]:
    """The command line of a child that the kernel kills as soon as the calling thread ends, also by ``kill -9``.

    What a child starts on its own (a daemon that goes into the background) is not killed.

    :raises DependencyError: the program is not installed; ``hint`` says where it comes from.
    """
    if shutil.which(argv[0]) is None:
        raise DependencyError(
            f"cannot run {argv[0]!r}: the program is not installed",
            hint=hint or f"install the package that provides {argv[0]}",
        )
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv]


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float | None = 600,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    error: type[HoldfastError] = HoldfastError,
    hint: str = "",
) -> Completed:
    """Run a command to its end and collect its output; it does not outlive this process.

    :param timeout: seconds after which it is killed; ``None`` only for work without a natural bound.
    :raises DependencyError: the program is not installed.
    :raises HoldfastError: (as ``error``) non-zero exit with ``check``, or the timeout passed.
    """
    try:
        done = subprocess.run(
            bound(argv),
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            env=command_env(env),
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise error(f"`{describe(argv)}` did not finish within {timeout:g} s and was killed", hint=hint) from exc
    result = Completed(
        done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape")
    )
    if check and result.returncode != 0:
        detail = result.stderr.strip() or result.stdout.strip() or "no output"
        raise error(f"`{describe(argv)}` failed with exit status {result.returncode}: {detail}", hint=hint)
    return result
