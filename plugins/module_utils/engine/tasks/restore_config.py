# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the config in an archive becomes the config of the restored guest; text in, text out.

Keys that reach into the host (raw QEMU arguments, passed-through devices, bind mounts) are left out unless the archive
is trusted: whoever can write an archive must not be able to run things on the host that restores it.
"""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ..errors import IntegrityError, UsageError
from ..settings.sizes import format_size

_LINE = re.compile(r"^([a-zA-Z][\w.-]*):\s*(.*?)\s*$")
_MAP = re.compile(r"^#qmdump#map:([^:]+):([^:]+):([^:]*):([^:]*):$")
_MAC = re.compile(r"\b([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5})\b")
_DRIVE = re.compile(r"^(?:(?:ide|sata|scsi|virtio)\d+|efidisk0|tpmstate0)$")
_CT_VOLUME = re.compile(r"^(?:rootfs|mp\d+)$")
_HARMLESS_MEDIUM = re.compile(r"none|[^:/]+:iso/[^/]+")
"""What an archive may put into a CD drive; any other medium is a file of the host or a volume of another guest."""
_NET = re.compile(r"^net\d+$")
_NEVER = re.compile(
    r"^(?:lock|parent|digest|snapshots|template|unused\d+|vmstate|snaptime|snapstate|running(?:machine|cpu|-nets-.*)|cpuid)$"
)
_HOST_VM = re.compile(r"^(?:args|hookscript|hostpci\d+|parallel\d+|ivshmem|virtiofs\d+|cdrom)$")
_HOST_CT = re.compile(r"^(?:hookscript|dev\d+|lxc\..*)$")
_MAC_PREFIX = "BC:24:11"


@dataclass(frozen=True)
class MapLine:
    """What the archived config says about one disk in the archive."""

    key: str
    device: str
    storage: str
    format: str


@dataclass
class Transformed:
    """The restored guest's config.

    :param dropped: lines left out because they reach into the host; :param warnings: what else people should know.
    """

    text: str
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def disk_map(text: str) -> list[MapLine]:
    """The ``#qmdump#map`` lines of an archived VM config, in their order.

    :raises IntegrityError: a line is not about a drive, or a drive or device stands in two of them.
    """
    lines = [MapLine(*match.groups()) for match in map(_MAP.match, text.splitlines()) if match]
    for number, line in enumerate(lines):
        if not _DRIVE.match(line.key):
            raise IntegrityError(f"its config says that {line.device} is {line.key!r}, which is no drive")
        if any(line.key == other.key or line.device == other.device for other in lines[:number]):
            raise IntegrityError(f"its config says twice where {line.device} or {line.key} belongs")
    return lines


def config_lines(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Description lines (without the leading ``#``) and keys of a config, up to its first snapshot."""
    description: list[str] = []
    keys: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("["):
            break
        if line.startswith(("#qmdump#", "#vzdump#")):
            continue
        if line.startswith("#"):
            description.append(line[1:])
        else:
            match = _LINE.match(line)
            if match:
                keys.append((match[1], match[2]))
    return description, keys


def get_key(text: str, key: str) -> str | None:
    """Value of one key of a config text."""
    return dict(config_lines(text)[1]).get(key)


def split_volume(value: str) -> tuple[str, dict[str, str]]:
    """Volume (id or path) and options of a drive or mount point, in their order."""
    first, *rest = value.split(",")
    options: dict[str, str] = {}
    for part in rest:
        name, _equals, content = part.partition("=")
        options[name] = content
    if first.startswith(("file=", "volume=")):
        first = first.partition("=")[2]
    return first, options


def random_mac(taken: Iterable[str]) -> str:
    """A MAC address that no config in ``taken`` uses."""
    used = {mac.upper() for mac in taken}
    while True:
        mac = _MAC_PREFIX + "".join(f":{byte:02X}" for byte in secrets.token_bytes(3))
        if mac not in used:
            return mac


def macs_in(text: str) -> list[str]:
    """Every MAC address in a config text."""
    return [match.upper() for match in _MAC.findall(text)]


def transform_vm(
    text: str,
    volumes: Mapping[str, tuple[str, int]],
    *,
    unique: bool,
    trust: bool,
    overrides: Mapping[str, Any],
    taken_macs: Iterable[str] = (),
) -> Transformed:
    """The config of a VM restored from ``text``.

    :param volumes: new volume id and size in bytes per drive key.
    """
    done = Transformed("")
    description, keys = config_lines(text)
    result: dict[str, str] = {}
    for key, value in keys:
        if _NEVER.match(key):
            continue
        if key in volumes:
            result[key] = _moved(value, *volumes[key])
        elif not trust and _reaches_host_vm(key, value):
            done.dropped.append(f"{key}: {value}")
        elif _DRIVE.match(key):
            _unmapped_drive(key, value, result, description, done)
        elif key == "vmgenid":
            result[key] = value if value == "0" else str(uuid.uuid4())
        elif key == "smbios1" and unique:
            result[key] = re.sub(r"uuid=[^,]*", lambda _m: f"uuid={uuid.uuid4()}", value)
        else:
            result[key] = value
    if unique:
        _new_macs(result, taken_macs)
    _apply_overrides(result, overrides, _DRIVE)
    done.text = _render(description, sorted(result.items()))
    return done


def transform_ct(
    text: str,
    volumes: Mapping[str, tuple[str, int | None]],
    *,
    unique: bool,
    trust: bool,
    overrides: Mapping[str, Any],
    unprivileged: bool | None = None,
    taken_macs: Iterable[str] = (),
) -> Transformed:
    """The config of a container restored from ``text``.

    :param volumes: new volume id and size in bytes (``None`` keeps what is written) per mount point key.
    """
    done = Transformed("")
    description, keys = config_lines(text)
    result: dict[str, str] = {}
    raw: list[tuple[str, str]] = []
    for key, value in keys:
        if _NEVER.match(key):
            continue
        if key in volumes:
            result[key] = _moved(value, *volumes[key])
        elif not trust and (_HOST_CT.match(key) or _CT_VOLUME.match(key)):
            done.dropped.append(f"{key}: {value}")
        elif key.startswith("lxc."):
            raw.append((key, value))
        else:
            result[key] = value
    if unprivileged is not None:
        result["unprivileged"] = "1" if unprivileged else "0"
    if unique:
        _new_macs(result, taken_macs)
    _apply_overrides(result, overrides, _CT_VOLUME)
    done.text = _render(description, [*sorted(result.items()), *raw])
    return done


def _reaches_host_vm(key: str, value: str) -> bool:
    if _HOST_VM.match(key):
        return True
    if re.match(r"^usb\d+$", key):
        return "spice" not in value.split(",")[0]
    if re.match(r"^serial\d+$", key):
        return value != "socket"
    if not _DRIVE.match(key):
        return False
    volume, options = split_volume(value)
    if not {"file", "volume"}.isdisjoint(options):
        # Two volumes are named, and who starts the VM may take the other one.
        return True
    cdrom = options.get("media") == "cdrom" and "cloudinit" not in volume
    return (cdrom or volume == "cdrom") and _HARMLESS_MEDIUM.fullmatch(volume) is None


def _unmapped_drive(key: str, value: str, result: dict[str, str], description: list[str], done: Transformed) -> None:
    """A drive without data in the archive."""
    volume, options = split_volume(value)
    if options.get("media") == "cdrom" and "cloudinit" not in volume:
        result[key] = value
        return
    if "cloudinit" in volume:
        done.warnings.append(f"{key}: the cloud-init drive is not made again")
    elif options.get("backup") in ("0", "no", "off", "false"):
        done.warnings.append(f"{key}: it was left out of the backup and is commented out")
    else:
        done.warnings.append(f"{key}: the archive holds no data for it, it is commented out")
    description.append(f"{key}: {value}")


def _moved(value: str, volid: str, size: int | None) -> str:
    _old, options = split_volume(value)
    for name in ("file", "format", "volume"):
        options.pop(name, None)
    if size is not None:
        options["size"] = format_size(size)
    return ",".join([volid, *(f"{name}={content}" if content else name for name, content in options.items())])


def _new_macs(result: dict[str, str], taken: Iterable[str]) -> None:
    used = set(taken)
    for key, value in result.items():
        if _NET.match(key):
            mac = random_mac(used)
            used.add(mac)
            result[key] = _MAC.sub(mac, value, count=1)


def _apply_overrides(result: dict[str, str], overrides: Mapping[str, Any], volumes: re.Pattern[str]) -> None:
    for key, value in overrides.items():
        if volumes.match(key):
            raise UsageError(
                f"cannot override {key!r}: volumes come from the archive", hint="change it after the restore"
            )
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if "\n" in text or not _LINE.match(f"{key}: x"):
            raise UsageError(f"cannot override {key!r}: {text!r} is not a config value")
        if value is None:
            result.pop(key, None)
        else:
            result[key] = text


def _render(description: list[str], keys: Iterable[tuple[str, str]]) -> str:
    lines = [f"#{line}" for line in description]
    return "".join(f"{line}\n" for line in [*lines, *(f"{key}: {value}" for key, value in keys)])
