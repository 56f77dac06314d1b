# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which layer of options wins: the call, its job, the storage, ``vzdump.conf``, the built-in default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from ..errors import UsageError
from .options import OPTIONS, SUFFIX
from .retention import Keep, parse_keep

CALL, JOB, STORAGE, CONF, DEFAULT = LAYERS = ("call", "job", "storage", "vzdump.conf", "built-in")
"""From the strongest to the weakest."""

TARGET = ("storage", "dumpdir")


@dataclass(frozen=True)
class EffectiveOptions:
    """What a run uses, and where each value comes from.

    :param values: every name of ``OPTIONS``; :param sources: one of ``LAYERS`` for each; several, with commas, where
        a value is put together from several.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def keep(self) -> Keep:
        """The retention in effect."""
        return parse_keep(self.values["prune_backups"])

    @property
    def suffix(self) -> str:
        """File name suffix of the compression."""
        return SUFFIX[self.values["compress"]]


def merge(
    call: Mapping[str, Any],
    conf: Mapping[str, Any],
    *,
    job: Mapping[str, Any] | None = None,
    storage_prune: Mapping[str, int] | None = None,
) -> EffectiveOptions:
    """Put the layers together.

    :param call: typed options of the call; :param job: those of the job that it runs, in place of the call's own.
    :param conf: typed options of ``vzdump.conf``.
    :param storage_prune: the retention of the target storage, stronger than the node's defaults.
    :raises UsageError: options that exclude each other.
    """
    layers = {
        CALL: dict(call),
        JOB: dict(job or {}),
        STORAGE: {"prune_backups": storage_prune},
        CONF: dict(conf),
        DEFAULT: {name: option.default for name, option in OPTIONS.items()},
    }
    _settle_target(layers)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in OPTIONS:
        # The built-in default wins when nobody says anything, even if it is "not set".
        given = [layer for layer in LAYERS if layers[layer].get(name) is not None] or [DEFAULT]
        values[name], sources[name] = layers[given[0]].get(name), given[0]
    _unite_globs(layers, values, sources)
    _merge_performance(layers, values, sources)
    if parse_keep(values["prune_backups"]).all:
        # A retention that keeps everything switches pruning off, and with it the limit that goes without pruning.
        values["remove"], sources["remove"] = False, sources["prune_backups"]
    return EffectiveOptions(values, sources)


def _settle_target(layers: Mapping[str, dict[str, Any]]) -> None:
    """The pair belongs together: a layer that says where to write silences both options of the weaker ones."""
    chosen = False
    for layer in LAYERS:
        given = layers[layer]
        if chosen:
            for name in TARGET:
                given.pop(name, None)
        elif given.get("storage") and given.get("dumpdir"):
            raise UsageError("'storage' and 'dumpdir' exclude each other", hint="give one of them")
        elif given.get("storage") or given.get("dumpdir"):
            chosen = True
    if not chosen:
        layers[DEFAULT]["storage"] = "local"


def _unite_globs(layers: Mapping[str, dict[str, Any]], values: dict[str, Any], sources: dict[str, str]) -> None:
    """The node's globs come first; those of the call are added, or the job's where the call has none."""
    strong = next((layer for layer in (CALL, JOB) if layers[layer].get("exclude_path")), DEFAULT)
    both = [layer for layer in (CONF, strong) if layers[layer].get("exclude_path")]
    values["exclude_path"] = tuple(glob for layer in both for glob in layers[layer]["exclude_path"])
    sources["exclude_path"] = ", ".join(both) or DEFAULT


def _merge_performance(layers: Mapping[str, dict[str, Any]], values: dict[str, Any], sources: dict[str, str]) -> None:
    """The keys of this option are looked up one by one."""
    owner = {key: layer for layer in reversed(LAYERS) for key in layers[layer].get("performance") or ()}
    values["performance"] = {key: layers[layer]["performance"][key] for key, layer in owner.items()}
    sources["performance"] = ", ".join(layer for layer in LAYERS if layer in owner.values())
