# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's defaults, ``vzdump.conf``: changing them, and which layer of options wins."""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import UsageError
from ..rules.options import parse_options
from ..rules.precedence import TARGET, EffectiveOptions, merge
from ..settings.vzdump_conf import edit_vzdump_conf, parse_vzdump_conf
from ..system.files import read_text
from ..system.host import Host
from .changes import make_change
from .results import Change
from .stores import load_storages

NOT_IN_CONF = ("job_id",)


def plan_defaults(host: Host, wanted: Mapping[str, Any], *, purge: bool = False) -> Change:
    """The change that makes the node's defaults look as wanted; nothing is written.

    :param wanted: options by vzdump's names (``None`` values are not given).
    :param purge: options that are not given are removed; otherwise they stay as they are.
    :raises UsageError: an option is not possible.
    """
    path = host.paths.vzdump_conf
    base = read_text(path)
    text = base or ""
    before, _warnings = parse_vzdump_conf(text)
    given = parse_options(wanted)
    wrong = [name for name in NOT_IN_CONF if name in given]
    if wrong:
        raise UsageError(f"{wrong[0]!r} cannot be a default of the node", hint="leave it out")
    if all(name in given for name in TARGET):
        raise UsageError("'storage' and 'dumpdir' exclude each other", hint="give one of them")
    changes = {name: value for name, value in given.items() if before.get(name) != value}
    if purge:
        changes.update(dict.fromkeys(name for name in before if name not in given))
    new = edit_vzdump_conf(text, changes) if changes else text
    after, warnings = parse_vzdump_conf(new)
    return make_change(
        path=path,
        base=base,
        before=_plain(before),
        after=_plain(after),
        before_text=text,
        after_text=new,
        text=new,
        warnings=tuple(warnings),
    )


def explain_layers(
    host: Host, call: Mapping[str, Any], conf: Mapping[str, Any], job: Mapping[str, Any] | None = None
) -> tuple[EffectiveOptions, list[str]]:
    """Every option in effect and the layer it comes from, and why an answer is not the whole one.

    :param call: typed options of a call; :param conf: those of ``vzdump.conf``; :param job: those of a job.
    """
    options = merge(call, conf, job=job)
    if not options["storage"]:
        return options, []
    definition = load_storages(host).get(options["storage"])
    if definition is None:
        return options, [f"there is no usable storage {options['storage']!r}, so its retention cannot be told"]
    return merge(call, conf, job=job, storage_prune=definition.prune_backups), []


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
