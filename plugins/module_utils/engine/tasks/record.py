# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a run: who does what since when, and the undo journals of the guests it touches.

``runs/<id>/run.json`` says what was asked, which process works on it and what came out; ``runs/<id>/<vmid>.journal``
holds what must be undone. A record whose process is gone while its state is still ``running`` belongs to a run that was
killed: :mod:`.heal` cleans up after it. ``runs/<id>/run.log`` is what the run said.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from typing import Any

from ..system.files import make_folders, read_text, remove_temporaries, write_atomic
from ..system.host import Host
from ..system.locks import identity, is_alive
from ..system.report import Reporter
from ..system.trouble import FileError, tried
from .locking import records_lock

_JOURNAL = re.compile(r"[0-9]{1,9}\.journal")
KEEP_RECORDS = 200
"""Finished records that stay for ``holdfast status``; older ones are removed."""


@dataclass
class RunRecord:
    """One run on disk.

    :param folder: the record's own folder; scratch files of the run live in it, too.
    """

    id: str
    folder: str
    data: dict[str, Any]

    @classmethod
    def start(cls, host: Host, kind: str, request: dict[str, Any]) -> RunRecord:
        """Write a new record in the state ``running``.

        :param kind: ``backup``, ``restore`` or ``verify``; :param request: what was asked, for people.
        :raises LockError: another process has been cleaning up after killed runs for minutes.
        """
        with records_lock(host, f"beginning a {kind}"):
            record = cls._write(host, kind, request)
            tidy_records(host)
            return record

    @classmethod
    def _write(cls, host: Host, kind: str, request: dict[str, Any]) -> RunRecord:
        now = time.time()
        run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{os.getpid()}"
        number = 0
        make_folders(host.paths.runs)
        while True:
            folder = os.path.join(host.paths.runs, run_id if number == 0 else f"{run_id}-{number}")
            try:
                with tried("create the folder", folder):
                    os.mkdir(folder, mode=0o750)
                break
            except FileError as exc:
                if exc.errno != errno.EEXIST:
                    raise
                number += 1
        record = cls(
            os.path.basename(folder),
            folder,
            {
                "id": os.path.basename(folder),
                "kind": kind,
                "node": host.node,
                "state": "running",
                "started": int(now),
                "process": identity(f"{kind} run {os.path.basename(folder)}"),
                "request": request,
                "result": None,
            },
        )
        try:
            record.save()
        except FileError:
            # It would look like that of a killed run.
            os.rmdir(folder)
            raise
        return record

    @property
    def path(self) -> str:
        return os.path.join(self.folder, "run.json")

    def save(self) -> None:
        write_atomic(self.path, json.dumps(self.data, indent=1) + "\n", 0o640)

    def abort(self) -> None:
        """Close the record of a run whose process is gone."""
        remove_temporaries(self.path)
        self.finish("aborted")

    def update(self, result: dict[str, Any]) -> None:
        """Note how far the run came, for ``holdfast status`` and for whoever finds the record of a killed run.

        :raises FileError: it cannot be written; the record has what it had before.
        """
        self.data["result"] = result
        self.save()

    def finish(self, state: str, result: dict[str, Any] | None = None) -> None:
        """Close the record: ``finished``, ``failed``, ``interrupted`` or ``aborted``. Errors as of :meth:`update`."""
        self.data["state"] = state
        self.data["finished"] = int(time.time())
        if result is not None:
            self.data["result"] = result
        self.save()

    def close(self, state: str, result: dict[str, Any], report: Reporter) -> None:
        """The same at the end of a run, whose work is done: that this cannot be noted must not undo it, or hide why it
        failed. The next run takes the record for that of a killed run, and closes it.
        """
        try:
            self.finish(state, result)
        except FileError as exc:
            report.warn(f"the record of the run is not complete: {exc}")

    @property
    def log(self) -> str:
        """Path of what the run says."""
        return os.path.join(self.folder, "run.log")

    def journal(self, vmid: int) -> str:
        """Path of the undo journal of one guest."""
        return os.path.join(self.folder, f"{vmid}.journal")

    def journals(self) -> list[tuple[int, str]]:
        """Journals with something left to undo: vmid and path."""
        names: list[str] = []
        # Another process may have removed an old record meanwhile.
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in sorted(os.listdir(self.folder)) if _JOURNAL.fullmatch(name)]
        return [(int(name[: -len(".journal")]), os.path.join(self.folder, name)) for name in names]

    def refresh(self) -> None:
        """Read again what the record says: its process may have gone on since."""
        self.data.update(_read(self.folder))

    @property
    def alive(self) -> bool:
        """Whether the process that runs it still exists."""
        process = self.data.get("process")
        return isinstance(process, dict) and is_alive(process)

    @property
    def state(self) -> str:
        return str(self.data.get("state", "aborted"))


def load_records(host: Host) -> list[RunRecord]:
    """All records, newest first. A record that was cut short by a crash counts as one of a dead process."""
    return [open_record(host, name) for name in _record_names(host)]


def _record_names(host: Host) -> list[str]:
    folder = host.paths.runs
    with tried("list the folder", folder), contextlib.suppress(FileNotFoundError):
        return sorted((name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))), reverse=True)
    return []


def open_record(host: Host, run_id: str) -> RunRecord:
    """The record of a run."""
    folder = os.path.join(host.paths.runs, run_id)
    return RunRecord(run_id, folder, {"id": run_id, "state": "running", **_read(folder)})


def _read(folder: str) -> dict[str, Any]:
    try:
        return dict(json.loads(read_text(os.path.join(folder, "run.json")) or "{}"))
    except (ValueError, TypeError):
        return {}


def tidy_records(host: Host) -> None:
    """Remove records beyond :data:`KEEP_RECORDS` that are closed and have nothing left to undo."""
    for name in _record_names(host)[KEEP_RECORDS:]:
        record = open_record(host, name)
        if record.state != "running" and not record.journals():
            shutil.rmtree(record.folder, ignore_errors=True)
