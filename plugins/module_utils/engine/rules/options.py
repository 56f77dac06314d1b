# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vzdump's options: their types and built-in defaults. Names carry underscores here; dashes are accepted on input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ..errors import UsageError
from .notes import check_notes
from .retention import parse_keep
from .values import parse_flag, parse_pairs, split_words, whole_number

Check = Callable[[Any], Any]


def _choice(*allowed: str) -> Check:
    def check(value: Any) -> str:
        if str(value) not in allowed:
            raise ValueError(f"is not one of {', '.join(allowed)}")
        return str(value)

    return check


def _text(value: Any) -> str:
    if not str(value):
        raise ValueError("is empty")
    return str(value)


def _path(value: Any) -> str:
    if not str(value).startswith("/"):
        raise ValueError("is not an absolute path")
    return str(value).rstrip("/") or "/"


def _metrics_file(value: Any) -> str:
    if str(value) == "none":
        return "none"
    if not str(value).endswith(".prom"):
        raise ValueError("does not end in .prom, as files of metrics must, and is not 'none'")
    return _path(value)


def _list(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return split_words(value)
    return tuple(str(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def _globs(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _keep(value: Any) -> dict[str, int]:
    return parse_keep(value).to_dict()


def _structure(value: Any, checks: Mapping[str, Check], default_key: str | None = None) -> dict[str, Any]:
    """A property string, or a mapping in its place."""
    if isinstance(value, Mapping):
        given = {str(key).replace("_", "-"): item for key, item in value.items() if item is not None}
    else:
        given = dict(parse_pairs(str(int(value) if isinstance(value, bool) else value), default_key))
    unknown = sorted(set(given) - set(checks))
    if unknown:
        raise ValueError(f"has unknown keys: {', '.join(unknown)} (known are {', '.join(checks)})")
    result = {}
    for key, item in given.items():
        try:
            result[key] = checks[key](item)
        except ValueError as exc:
            raise ValueError(f"has a wrong value: {key} {exc}") from exc
    return result


def _fleecing(value: Any) -> dict[str, Any]:
    result = {"enabled": False, **_structure(value, {"enabled": parse_flag, "storage": _text}, "enabled")}
    if result["enabled"] and "storage" not in result:
        raise ValueError("is enabled, but names no storage for the fleecing images")
    return result


def _performance(value: Any) -> dict[str, int]:
    return _structure(value, {"max-workers": whole_number(1, 256), "pbs-entries-max": whole_number(1)})


def _compress(value: Any) -> str:
    text = _choice("0", "1", "gzip", "lzo", "zstd")(str(int(value)) if isinstance(value, bool) else value)
    return "lzo" if text == "1" else text


def _notes(value: Any) -> str:
    text = str(value).strip()
    if len(text) > 1024:
        raise ValueError("is longer than 1024 characters")
    # A template that cannot be filled is refused when it is given, not in the night when it is used.
    check_notes(text)
    return text


def _job_id(value: Any) -> str:
    if not 0 < len(str(value)) <= 50 or len(str(value).split()) != 1:
        raise ValueError("is not 1 to 50 characters without blanks")
    return str(value)


@dataclass(frozen=True)
class Option:
    """:param check: turns text or a plain value into the typed one, ``ValueError`` says what is wrong with it."""

    check: Callable[[Any], Any]
    default: Any


OPTIONS: dict[str, Option] = {
    "bwlimit": Option(whole_number(0), 0),
    "compress": Option(_compress, "0"),
    "dumpdir": Option(_path, None),
    "exclude_path": Option(_globs, ()),
    "fleecing": Option(_fleecing, {"enabled": False}),
    "ionice": Option(whole_number(0, 8), 7),
    "job_id": Option(_job_id, None),
    "lockwait": Option(whole_number(0), 180),
    "mailnotification": Option(_choice("always", "failure"), "always"),
    "mailto": Option(_list, ()),
    "metrics_file": Option(_metrics_file, None),
    "mode": Option(_choice("snapshot", "suspend", "stop"), "snapshot"),
    "notes_template": Option(_notes, None),
    "notification_mode": Option(_choice("auto", "legacy-sendmail", "notification-system"), "auto"),
    "pbs_change_detection_mode": Option(_choice("legacy", "data", "metadata"), None),
    "performance": Option(_performance, {"max-workers": 16, "pbs-entries-max": 1048576}),
    "pigz": Option(whole_number(), 0),
    "protected": Option(parse_flag, None),
    "prune_backups": Option(_keep, {"keep-all": 1}),
    "quiet": Option(parse_flag, False),
    "remove": Option(parse_flag, True),
    "script": Option(_path, None),
    "stdexcludes": Option(parse_flag, True),
    "stopwait": Option(whole_number(0), 10),
    "storage": Option(_text, None),
    "tmpdir": Option(_path, None),
    "zstd": Option(whole_number(0), 1),
}
"""Every option of a backup by its name; selection has its own rules. ``lockwait`` and ``stopwait`` are minutes."""

SELECTION = ("all", "exclude", "node", "pool", "query", "tags", "vmid")
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
        raise UsageError(f"option {key}: {value!r} {exc}", hint="give a value of that kind, or leave it out") from exc
    except UsageError as exc:
        raise UsageError(f"option {key}: {exc.message}", hint=exc.hint) from exc


def parse_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Typed values of all options that are given (not ``None``).

    :raises UsageError: as :func:`parse_option`.
    """
    return {name.replace("-", "_"): parse_option(name, value) for name, value in values.items() if value is not None}
