# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vzdump's options: their types, and which layer wins (call or job, storage, node defaults, built-in default).

Names carry underscores here; dashes are accepted on input. ``compress: 1`` means ``lzo`` in the original; here it is
refused with a hint, because everybody who writes it expects zstd.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ..errors import UsageError
from .notes import VARIABLES, render_notes
from .retention import Keep, parse_keep

_TRUE, _FALSE = ("1", "on", "yes", "true"), ("0", "off", "no", "false")
_WORDS = re.compile(r"[,;\s]+")


def _boolean(value: Any) -> bool:
    text = str(int(value) if isinstance(value, bool) else value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ValueError("is neither yes nor no")
    return text in _TRUE


def _integer(least: int, most: int | None = None) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+", str(value).strip(), re.ASCII):
            raise ValueError("is not a whole number")
        number = int(value)
        if number < least or (most is not None and number > most):
            raise ValueError(f"is not between {least} and {most}" if most is not None else f"is less than {least}")
        return number

    return check


def _choice(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if str(value) not in allowed:
            raise ValueError(f"is not one of {', '.join(allowed)}")
        return str(value)

    return check


def _text(value: Any) -> str:
    return str(value)


def _path(value: Any) -> str:
    if not str(value).startswith("/"):
        raise ValueError("is not an absolute path")
    return str(value)


def _list(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word for word in _WORDS.split(value) if word)
    return tuple(str(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def _globs(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _keep(value: Any) -> dict[str, int]:
    return parse_keep(value).to_dict()


def _pairs(value: Any, default_key: str | None) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key).replace("_", "-"): item for key, item in value.items() if item is not None}
    result: dict[str, Any] = {}
    for part in str(value).split(","):
        key, equals, item = part.partition("=")
        if not equals:
            if default_key is None:
                raise ValueError(f"has a part without key: {part!r}")
            key, item = default_key, part
        result[key] = item
    return result


def _fleecing(value: Any) -> dict[str, Any]:
    pairs = _pairs({"enabled": value} if isinstance(value, bool) else value, "enabled")
    unknown = set(pairs) - {"enabled", "storage"}
    if unknown:
        raise ValueError(f"has unknown keys: {', '.join(sorted(unknown))}")
    result: dict[str, Any] = {"enabled": _boolean(pairs.get("enabled", False))}
    if pairs.get("storage"):
        result["storage"] = str(pairs["storage"])
    elif result["enabled"]:
        raise ValueError("is enabled, but names no storage for the fleecing images")
    return result


def _performance(value: Any) -> dict[str, int]:
    checks = {"max-workers": _integer(1, 256), "pbs-entries-max": _integer(1)}
    pairs = _pairs(value, None)
    unknown = set(pairs) - set(checks)
    if unknown:
        raise ValueError(f"has unknown keys: {', '.join(sorted(unknown))}")
    return {key: checks[key](item) for key, item in pairs.items()}


def _compress(value: Any) -> str:
    text = "0" if value is False else str(value)
    return _choice("0", "gzip", "lzo", "zstd")(text)


def _notes(value: Any) -> str:
    if len(str(value)) > 1024:
        raise ValueError("is longer than 1024 characters")
    # A template that cannot be filled is refused when it is given, not in the night when it is used.
    render_notes(str(value), dict.fromkeys(VARIABLES, ""))
    return str(value)


@dataclass(frozen=True)
class Option:
    """:param check: turns text or a plain value into the typed one, ``ValueError`` says what is wrong with it."""

    check: Callable[[Any], Any]
    default: Any


OPTIONS: dict[str, Option] = {
    "bwlimit": Option(_integer(0), 0),
    "compress": Option(_compress, "0"),
    "dumpdir": Option(_path, None),
    "exclude_path": Option(_globs, ()),
    "fleecing": Option(_fleecing, {"enabled": False}),
    "ionice": Option(_integer(0, 8), 7),
    "job_id": Option(_text, None),
    "lockwait": Option(_integer(0), 180),
    "mailnotification": Option(_choice("always", "failure"), "always"),
    "mailto": Option(_list, ()),
    "mode": Option(_choice("snapshot", "suspend", "stop"), "snapshot"),
    "notes_template": Option(_notes, None),
    "notification_mode": Option(_choice("auto", "legacy-sendmail", "notification-system"), "auto"),
    "pbs_change_detection_mode": Option(_choice("legacy", "data", "metadata"), None),
    "performance": Option(_performance, {}),
    "pigz": Option(_integer(0), 0),
    "protected": Option(_boolean, None),
    "prune_backups": Option(_keep, None),
    "quiet": Option(_boolean, False),
    "remove": Option(_boolean, True),
    "script": Option(_path, None),
    "stdexcludes": Option(_boolean, True),
    "stopwait": Option(_integer(0), 10),
    "storage": Option(_text, None),
    "tmpdir": Option(_path, None),
    "zstd": Option(_integer(0), 1),
}
"""Every option of a backup by its name; selection has its own rules. ``lockwait`` and ``stopwait`` are minutes."""

SELECTION = ("all", "exclude", "node", "pool", "vmid")
SUFFIX = {"0": "", "gzip": "gz", "lzo": "lzo", "zstd": "zst"}
"""File name suffix of each value of ``compress``."""


def parse_option(name: str, value: Any) -> Any:
    """The typed value of one option, from text or from a plain value.

    :raises UsageError: there is no such option, or the value is not possible.
    """
    key = name.replace("-", "_")
    if key not in OPTIONS:
        hint = "known are " + ", ".join(sorted(OPTIONS))
        raise UsageError(f"there is no backup option {name!r}", hint=hint)
    try:
        return OPTIONS[key].check(value)
    except ValueError as exc:
        hint = "write lzo or zstd" if key == "compress" and str(value) in ("1", "True") else ""
        raise UsageError(f"option {key}: {value!r} {exc}", hint=hint) from exc
    except UsageError as exc:
        raise UsageError(f"option {key}: {exc.message}", hint=exc.hint) from exc


def parse_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Typed values of all options that are given (not ``None``).

    :raises UsageError: as :func:`parse_option`.
    """
    return {name.replace("-", "_"): parse_option(name, value) for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class EffectiveOptions:
    """What a run uses, and where each value comes from.

    :param values: every name of ``OPTIONS``; :param sources: ``call``, ``storage``, ``vzdump.conf`` or ``default``.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def keep(self) -> Keep | None:
        """Retention to apply after each guest; ``None`` when nothing may be removed."""
        value = self.values["prune_backups"]
        keep = parse_keep(value) if value else Keep()
        return None if keep.all or not self.values["remove"] else keep

    @property
    def suffix(self) -> str:
        """File name suffix of the compression."""
        return SUFFIX[self.values["compress"]]


def merge(
    call: Mapping[str, Any], storage_prune: Mapping[str, int] | None, conf: Mapping[str, Any]
) -> EffectiveOptions:
    """Put the layers together.

    :param call: typed options of the call or the job; :param conf: typed options of ``vzdump.conf``.
    :param storage_prune: the retention of the target storage, stronger than the node's defaults.
    :raises UsageError: options that exclude each other.
    """
    if call.get("storage") and call.get("dumpdir"):
        raise UsageError("'storage' and 'dumpdir' exclude each other", hint="give one of them")
    defaults = dict(conf)
    if call.get("storage") or call.get("dumpdir"):
        # The pair belongs together: a call that says where to write silences both defaults.
        defaults.pop("storage", None)
        defaults.pop("dumpdir", None)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, option in OPTIONS.items():
        layers = [("call", call.get(name)), ("vzdump.conf", defaults.get(name)), ("default", option.default)]
        if name == "prune_backups":
            layers.insert(1, ("storage", storage_prune))
        sources[name], values[name] = next(layer for layer in layers if layer[1] is not None or layer[0] == "default")
    values["exclude_path"] = (*defaults.get("exclude_path", ()), *call.get("exclude_path", ()))
    values["performance"] = {
        "max-workers": 16,
        "pbs-entries-max": 1048576,
        **defaults.get("performance", {}),
        **call.get("performance", {}),
    }
    if values["storage"] is None and values["dumpdir"] is None:
        values["storage"] = "local"
    return EffectiveOptions(values, sources)
