# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hook scripts: the option ``script``, called in the phases of vzdump; docs/hooks.md tells which and what they mean.

No guest waits for a script for long: file systems are thawed and guests resumed before one is called, and a guest that
is shut down is started without one that takes too long. Whatever failed, phases come in pairs: an interruption of a
guest that a script was told about is followed by its end, and so is a run.
"""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Iterator, Mapping, Sequence

from ..errors import HookError
from ..guests.model import GuestInfo
from ..rules.names import ArchiveName
from ..rules.precedence import EffectiveOptions
from ..storages.base import Storage
from ..system.report import Reporter
from ..system.script import run_script
from .signals import interruptible, stopping

DOWN_SECONDS = 60
"""How long a script may keep a guest from being started."""
HURRY_SECONDS = 10
"""How long a script may keep a run from ending that was told to."""


class RunHooks:
    """The phases of a run, which is the block of this context."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._script = ""
        self._environment: dict[str, str] = {}
        self._open = False

    def __enter__(self) -> RunHooks:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None:
            self.abort()

    def init(self, options: EffectiveOptions) -> None:
        """``job-init``: what is asked for makes sense, the target has not been looked at.

        :raises HookError: the run shall fail.
        """
        self._script = options["script"] or ""
        target = {"STOREID": options["storage"], "DUMPDIR": options["dumpdir"]}
        self._environment = {name: str(value) for name, value in target.items() if value}
        with interruptible():
            self._call("job-init")
        self._open = True

    def start(self, storage: Storage) -> None:
        """``job-start``: the target is usable, the run has its lock.

        :raises HookError: the run shall fail.
        """
        self._environment["DUMPDIR"] = os.path.normpath(storage.archives.path)
        self._call("job-start")

    def end(self) -> None:
        """``job-end``: all guests have been tried.

        :raises HookError: the run shall fail.
        """
        self._call("job-end")
        self._open = False

    def abort(self) -> None:
        """``job-abort``: the run as a whole failed or was interrupted; only once, and not without ``job-init``."""
        if self._open:
            self._open = False
            with _tolerated(self._report):
                self._call("job-abort")

    def of_guest(self, info: GuestInfo, name: ArchiveName, storage: Storage, mode: str, log: Reporter) -> GuestHooks:
        """The phases of one guest of the run; see :class:`GuestHooks`."""
        environment = {
            **self._environment,
            "VMTYPE": info.archive_kind,
            "HOSTNAME": info.name,
            "TARGET": storage.archives.final_path(name),
            "LOGFILE": storage.archives.log_path(name),
        }
        return GuestHooks(self._script, environment, info.vmid, mode, log)

    def _call(self, phase: str) -> None:
        _call(self._script, [phase], self._environment, self._report)


class GuestHooks:
    """The phases of one guest's backup; a capture tells what comes in between (:class:`..capture.model.Phases`).

    :param mode: as requested, until it is known which one it will be.
    """

    def __init__(self, script: str, environment: Mapping[str, str], vmid: int, mode: str, log: Reporter) -> None:
        self._script = script
        self._environment = environment
        self._vmid = vmid
        self._mode = mode
        self._log = log

    def begin(self, mode: str) -> None:
        """``backup-start``"""
        self._mode = mode
        self._log.info(f"backup mode: {mode}")
        self._call("backup-start")

    @contextlib.contextmanager
    def interruption(self) -> Iterator[Callable[[], None]]:
        """``pre-stop``, ``pre-restart``, ``post-restart``"""
        self._call("pre-stop")
        left = ["pre-restart", "post-restart"]

        def restarting() -> None:
            if len(left) == 2:
                self._try(left.pop(0), DOWN_SECONDS)

        def finish(limit: int = 0) -> None:
            if left:
                try:
                    self._try(left.pop(0), limit)
                finally:
                    finish(limit)

        try:
            yield restarting
        except Exception:
            # If the guest could not be brought back, this is tried again behind the script.
            finish(DOWN_SECONDS)
            raise
        try:
            # The archive of a guest that was shut down may be complete by now, and is good whatever the script says.
            while left and self._mode != "stop":
                self._call(left.pop(0))
        finally:
            finish()

    def end(self) -> None:
        """``backup-end``: the archive is complete, the retention was applied, the guest runs as before.

        :raises HookError: the guest's backup shall count as failed.
        """
        self._call("backup-end")

    def abort(self) -> None:
        """``backup-abort``: the guest's backup failed."""
        self._try("backup-abort")

    def log_end(self) -> None:
        """``log-end``: the log is beside the archive."""
        self._try("log-end")

    def _call(self, phase: str, limit: int = 0) -> None:
        _call(self._script, [phase, self._mode, str(self._vmid)], self._environment, self._log, limit)

    def _try(self, phase: str, limit: int = 0) -> None:
        with _tolerated(self._log):
            self._call(phase, limit)


@contextlib.contextmanager
def _tolerated(report: Reporter) -> Iterator[None]:
    try:
        yield
    except HookError as exc:
        report.warn(str(exc))


def _call(script: str, args: Sequence[str], environment: Mapping[str, str], report: Reporter, limit: int = 0) -> None:
    if script:
        report.info(f"hook script: {args[0]}")
        limit = HURRY_SECONDS if stopping() else limit
        run_script(script, args, env=environment, tell=report.info, limit=limit)
