# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup request turned into what the run works with: target, options, guests."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

from ..errors import StorageError, UsageError
from ..guests.model import GuestInfo
from ..rules.durations import parse_age
from ..rules.excludes import parse_pattern
from ..rules.options import parse_options
from ..rules.precedence import DEFAULT, EffectiveOptions, merge
from ..rules.retention import Keep, format_keep
from ..rules.selection import Selection as Selected
from ..rules.selection import select
from ..settings.jobs import JobDef
from ..settings.section import about
from ..settings.storages import StorageDef
from ..storages.base import Need, Storage
from ..storages.dump import Archive
from ..storages.registry import open_storage
from ..system.host import Host
from ..system.script import check_script
from .archives import SKEW_SECONDS
from .defaults import explain_layers
from .definitions import get_job, load_conf, read_jobs
from .guests import guest_refs, list_guests
from .requests import BackupRequest, Selection
from .stores import get_storage


@dataclass(frozen=True)
class BackupSettings:
    """The options of a run in the engine's terms.

    :param compression: file suffix; :param threads: of the compressor, 0 stands for half of the processors.
    :param keep: retention to apply after each guest, ``None`` when nothing may be removed.
    :param limit: number of unprotected archives that a guest may have before a backup; 0 means any.
    """

    options: EffectiveOptions

    @property
    def mode(self) -> str:
        return str(self.options["mode"])

    @property
    def compression(self) -> str:
        return self.options.suffix

    @property
    def threads(self) -> int:
        if self.compression == "gz":
            # vzdump's pigz: 0 is plain gzip, 1 is half of the processors.
            number = max(0, int(self.options["pigz"]))
            return {0: 1, 1: 0}.get(number, number)
        return int(self.options["zstd"])

    @property
    def bwlimit(self) -> int:
        return int(self.options["bwlimit"])

    @property
    def ionice(self) -> int:
        return int(self.options["ionice"])

    @property
    def max_workers(self) -> int:
        return int(self.options["performance"]["max-workers"])

    @property
    def lockwait(self) -> int:
        return int(self.options["lockwait"])

    @property
    def stopwait(self) -> int:
        return int(self.options["stopwait"])

    @property
    def tmpdir(self) -> str | None:
        value = self.options["tmpdir"]
        return None if value is None else str(value)

    @property
    def exclude_path(self) -> tuple[str, ...]:
        return tuple(self.options["exclude_path"])

    @property
    def stdexcludes(self) -> bool:
        return bool(self.options["stdexcludes"])

    @property
    def fleecing_storage(self) -> str | None:
        fleecing = self.options["fleecing"]
        return str(fleecing["storage"]) if fleecing.get("enabled") else None

    @property
    def protected(self) -> bool:
        return bool(self.options["protected"])

    @property
    def notes_template(self) -> str:
        return self.options["notes_template"] or ""

    @property
    def keep(self) -> Keep | None:
        return self.options.keep if self.options["remove"] else None

    @property
    def keep_text(self) -> str:
        return format_keep(self.options.keep)

    @property
    def limit(self) -> int:
        return 0 if self.options["remove"] else sum(count for _rule, count in self.options.keep.counts)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin.

    :param external: ids of selected guests that live on other nodes.
    :param missing: ids and names asked for that no guest has: the others are backed up, and the run fails.
    :param max_age: seconds; ``None`` when every guest is backed up.
    """

    settings: BackupSettings
    storage: Storage
    guests: list[GuestInfo]
    external: list[int] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    max_age: int | None = None
    max_age_text: str = ""

    def effective_options(self) -> dict[str, Any]:
        """Every option that has a value."""
        values = self.settings.options.values
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if v not in (None, (), {})}

    def option_sources(self) -> dict[str, str]:
        return dict(self.settings.options.sources)


def prepare(
    host: Host, request: BackupRequest, begin: Callable[[EffectiveOptions], None] = lambda options: None
) -> Prepared:
    """Resolve job, layers of options, selection and target; nothing is changed.

    :param begin: called before the target is looked at, if there is a guest to be backed up. It may change the target.
    :raises UsageError: a name is unknown, or options make no sense together.
    :raises StorageError: the target cannot be used; :raises HookError: the hook script cannot be used.
    """
    job, call, conf, warnings = _layers(host, request)
    of_job = None if job is None else job.options
    options = merge(call, conf, job=of_job)
    if options["script"]:
        check_script(options["script"])
    for pattern in options["exclude_path"]:
        parse_pattern(pattern)
    if options["tmpdir"] and not os.path.isdir(options["tmpdir"]):
        raise UsageError(f"tmpdir {options['tmpdir']!r} does not exist", hint="create it, or leave the option out")
    chosen = _select(host, request.selection if request.selection.given else _job_selection(job))
    infos = {info.vmid: info for info in list_guests(host)} if chosen.guests or chosen.missing else {}
    if chosen.missing and not chosen.guests and not chosen.skipped:
        present = ", ".join(f"{info.vmid} ({info.name})" for info in [*infos.values()][:20]) or "none at all"
        raise UsageError(
            f"there is no guest {' or '.join(map(repr, chosen.missing))} on node {host.node!r}",
            hint=f"guests here: {present}",
        )
    if chosen.guests:
        begin(options)
    with _default_target_named(options):
        storage = _target(host, options)
        storage.activate(Need("backup"))
    options = merge(call, conf, job=of_job, storage_prune=storage.definition.prune_backups)
    if options["fleecing"].get("enabled"):
        get_storage(host, options["fleecing"]["storage"]).activate(Need("images"))
    return Prepared(
        settings=BackupSettings(options),
        storage=storage,
        guests=[infos[vmid] for vmid in chosen.guests],
        external=list(chosen.skipped),
        missing=list(chosen.missing),
        warnings=[*warnings, *chosen.warnings],
        max_age=None if request.max_age is None or request.force else parse_age(request.max_age),
        max_age_text=request.max_age or "",
    )


def explain_options(host: Host, request: BackupRequest) -> tuple[EffectiveOptions, list[str]]:
    """Every option that a run would use and the layer it comes from, and what of the layers has no effect.

    The target needs not be usable, not even defined: whoever asks may want to know why.

    :raises UsageError: an option makes no sense; :raises ConfigError: the job cannot be used.
    """
    job, call, conf, warnings = _layers(host, request)
    options, problems = explain_layers(host, call, conf, None if job is None else job.options)
    return options, [*warnings, *problems]


def _layers(host: Host, request: BackupRequest) -> tuple[JobDef | None, dict[str, Any], dict[str, Any], list[str]]:
    """The job, the options of the call, those of ``vzdump.conf``, and what of them has no effect."""
    job = get_job(host, request.job) if request.job is not None else None
    conf, warnings = load_conf(host)
    if job is not None:
        warnings = [*about(read_jobs(host).findings, job.id), *warnings]
    return job, parse_options(request.options), conf, warnings


def fresh_archive(prepared: Prepared, info: GuestInfo) -> Archive | None:
    """The guest's newest archive on the target, if it is young enough to leave the guest alone."""
    if prepared.max_age is None:
        return None
    found = prepared.storage.archives.list_archives(info.vmid, info.archive_kind)
    archives = [archive for archive in found if archive.name is not None and archive.good]
    newest = max(archives, key=lambda archive: archive.time, default=None)
    if newest is None or not -SKEW_SECONDS <= time.time() - newest.time <= prepared.max_age:
        return None
    return newest


def selected_ids(host: Host, job: JobDef) -> list[int]:
    """Ids of this node's guests that a job backs up."""
    return list(_select(host, _job_selection(job)).guests)


def _select(host: Host, wanted: Selection) -> Selected:
    found = None
    if wanted.query:
        from .queries import query_guests

        found = query_guests(wanted.query, list_guests(host), host.node)
    return select(
        guest_refs(host),
        here=host.node,
        vmid=tuple(wanted.vmid),
        all=bool(wanted.all),
        exclude=tuple(wanted.exclude),
        pool=wanted.pool,
        node=wanted.node,
        tags=tuple(wanted.tags),
        found=found,
    )


def _job_selection(job: JobDef | None) -> Selection:
    return Selection() if job is None else Selection(**dict(job.selection))


@contextlib.contextmanager
def _default_target_named(options: EffectiveOptions) -> Iterator[None]:
    """Say of a target that cannot be used that nobody asked for it."""
    try:
        yield
    except (StorageError, UsageError) as exc:
        if options.sources["storage"] != DEFAULT:
            raise
        raise type(exc)(
            f"no storage for the archives is named, and the default cannot be used: {exc.message}",
            hint="name one in the call, in the job, or as the node's default in vzdump.conf;"
            " `holdfast storages` lists them",
        ) from exc


def _target(host: Host, options: EffectiveOptions) -> Storage:
    if options["storage"]:
        return get_storage(host, str(options["storage"]))
    # A plain folder is a storage without a definition whose archives lie directly in it.
    folder = StorageDef(
        name="dumpdir",
        type="dir",
        path=str(options["dumpdir"]),
        content=("backup",),
        create_base_path=False,
        content_dirs={"backup": "."},
    )
    return open_storage(folder, host)
