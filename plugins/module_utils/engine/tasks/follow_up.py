# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What follows a backup run: its outcome is kept, metrics are written, and people are told.

None of it fails the run. What goes wrong is a warning in the result and in the run's record.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, Iterator, Mapping

from ..errors import HoldfastError, UsageError
from ..system.host import Host
from ..system.report import Reporter
from ..system.trouble import explained
from .backup_guest import error_dict
from .backup_setup import explain_options
from .metrics import write_metrics
from .notify import notify
from .outcomes import remember
from .record import open_record
from .requests import BackupRequest
from .results import RunResult


@contextlib.contextmanager
def followed_up(host: Host, request: BackupRequest, report: Reporter) -> Iterator[RunResult]:
    """Hand out the result of a run, to be filled in, and follow the run up, however it ends.

    A request that makes no sense is told to whoever made it, unless it is a job: then nobody is there to be told.
    """
    result = RunResult(id="", node=host.node, storage=None, job=request.job, started=time.time())
    try:
        yield result
    except (HoldfastError, OSError) as exc:
        result.error = error_dict(exc)
        result.finished = result.finished or time.time()
        result.state = "failed" if result.state == "running" else result.state
        if request.job is not None or not isinstance(exc, UsageError):
            _follow_up(host, request, result, report)
        if isinstance(exc, HoldfastError) and exc.result is not None:
            exc.result = result.to_dict()
        raise
    if result.changed:
        _follow_up(host, request, result, report)


def _follow_up(host: Host, request: BackupRequest, result: RunResult, report: Reporter) -> None:
    changed = True

    def keep() -> None:
        nonlocal changed
        changed = remember(host, result)

    def tell() -> None:
        options = result.options or _options(host, request)
        for problem in notify(host, result, options, changed=changed, report=report):
            _warn(result, report, problem)

    before = len(result.warnings)
    _try(result, report, "cannot keep the outcome of the run", keep)
    _try(result, report, "cannot write metrics", lambda: write_metrics(host))
    _try(result, report, "cannot tell anybody about the run", tell)
    if result.id and (result.error is not None or len(result.warnings) > before):
        _try(result, report, "cannot add to the record of the run", lambda: _amend(host, result))


def _try(result: RunResult, report: Reporter, failure: str, step: Callable[[], Any]) -> None:
    try:
        step()
    except (HoldfastError, OSError, ValueError) as exc:
        _warn(result, report, f"{failure}: {exc if isinstance(exc, ValueError) else explained(exc)}")


def _warn(result: RunResult, report: Reporter, text: str) -> None:
    result.warnings.append(text)
    report.warn(text)


def _amend(host: Host, result: RunResult) -> None:
    open_record(host, result.id).update(result.to_dict())


def _options(host: Host, request: BackupRequest) -> Mapping[str, Any]:
    """The options of a run that did not come so far as to have any."""
    try:
        return explain_options(host, request)[0].values
    except HoldfastError:
        return {}
