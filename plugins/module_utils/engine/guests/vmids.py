# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guest ids for guests that have none of their own: archive names need one, and it must never change.

The number follows from the guest's identity and has nine digits, so that two nodes that share a storage do not give the
same one to different guests, and retention on one does not remove archives of the other. It is written down in a JSON
file (identity to id), where it may be replaced by another while the guest has no archives.
"""

from __future__ import annotations

import hashlib
import json
from typing import Iterable

from ..errors import ConfigError
from ..system.files import read_text, write_atomic
from ..system.host import Host
from ..system.locks import hold
from .model import GuestInfo

_FIRST, _COUNT = 100_000_000, 900_000_000


def stable_vmids(host: Host, identities: Iterable[str]) -> dict[str, int]:
    """The id of each guest; new guests are written down.

    :param identities: what makes each guest itself, with its kind: ``libvirt:<uuid>``, ``lxc:<node>/<name>``.
    :raises ConfigError: the file cannot be understood.
    """
    wanted = list(identities)
    known = _read(host)
    if all(identity in known for identity in wanted):
        return {identity: known[identity] for identity in wanted}
    with hold(f"{host.paths.locks}/vmids.lock", "giving ids to guests", wait=30):
        known = _read(host)
        for identity in wanted:
            if identity not in known:
                known[identity] = _choose(identity, set(known.values()))
        write_atomic(host.paths.vmids, json.dumps(known, indent=2, sort_keys=True) + "\n")
    return {identity: known[identity] for identity in wanted}


def placeholder(kind: str, name: str, where: str) -> GuestInfo:
    """Stands in the list of guests for what cannot be listed: it cannot be opened either, and that tells why.

    So it does not keep the others from being backed up, and is not passed over in silence.

    :param where: the definition that cannot be used.
    """
    return GuestInfo(kind, _choose(f"{kind}:{where}", set()), name, (), "", False, where)


def _choose(identity: str, taken: set[int]) -> int:
    number = int.from_bytes(hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()[:8], "big") % _COUNT
    while _FIRST + number in taken:
        number = (number + 1) % _COUNT
    return _FIRST + number


def _read(host: Host) -> dict[str, int]:
    text = read_text(host.paths.vmids)
    try:
        content = json.loads(text or "{}")
        return {str(identity): int(vmid) for identity, vmid in content.items()}
    except (ValueError, TypeError, AttributeError) as exc:
        raise ConfigError(
            f"cannot understand {host.paths.vmids}: {exc}", hint="it maps each guest to its id, as a JSON object"
        ) from exc
