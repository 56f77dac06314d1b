# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage kinds ``nfs`` and ``cifs``: folders of other machines, mounted when they are used."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from typing import Any

from ..errors import DependencyError, StorageError
from ..settings.network import MountSpec, network_mount
from ..settings.storages import StorageDef
from ..system.files import read_text, write_atomic
from ..system.host import Host
from ..system.locks import hold
from ..system.process import run
from .base import Need
from .dir import DirStorage
from .mounts import Mounted, mount_point, mount_table, space

MOUNT_SECONDS = 30.0
"""How long a server may take until its folder is mounted."""

_PACKAGES = {"nfs": "nfs-common", "cifs": "cifs-utils"}
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


class NetworkStorage(DirStorage):
    """An NFS export or an SMB share."""

    def __init__(self, definition: StorageDef, host: Host) -> None:
        super().__init__(definition, host)
        self.mount = mount_of(definition, host)

    def _activate(self, need: Need) -> None:
        try:
            self.mount.ensure(make_point=self.definition.create_base_path)
        except StorageError as exc:
            raise self._unusable(exc.message, exc.hint) from exc
        super()._activate(need)


class NetworkMount:
    """The mount of one storage.

    :param spec: what is mounted where. :param record: file that tells that this program mounted it.
    :param lock: file of the lock that keeps two runs from mounting at once.
    """

    def __init__(self, name: str, spec: MountSpec, password_file: str, record: str, lock: str) -> None:
        self.spec = spec
        self.point = mount_point(spec.point)
        self._name = name
        self._password_file = password_file
        self._record = record
        self._lock = lock

    def mounted(self) -> bool:
        """Whether it is mounted, by whomever.

        :raises StorageError: something else is mounted there.
        """
        found = self._topmost()
        if found is not None and not self._is_it(found):
            raise StorageError(
                f"{found.source} ({found.type}) is mounted on {self.point}, not {self.spec.source}",
                hint=f"umount {self.point}, or correct the definition of {self._name!r}",
            )
        return found is not None

    def ensure(self, *, make_point: bool = True) -> None:
        """Mount it unless it is mounted, and see whether it answers.

        :param make_point: create the mount point when it is missing.
        :raises StorageError: it cannot be mounted, or what is mounted does not answer.
        """
        with hold(self._lock, f"mount of storage {self._name}", wait=2 * MOUNT_SECONDS):
            if self.mounted():
                try:
                    space(self.point)
                    return
                except StorageError as exc:
                    # The server forgot the folder and has another one of that name now; this mount never heals.
                    if os.strerror(errno.ESTALE) not in exc.message or not self._is_ours():
                        raise StorageError(exc.message, hint=self._remedy()) from exc
                    self._detach()
            self._mount(make_point)
            try:
                space(self.point)
            except StorageError as exc:
                raise StorageError(exc.message, hint=self._remedy()) from exc

    def release(self) -> bool:
        """Unmount it, if this program mounted it; tells whether it did.

        :raises StorageError: it is in use.
        """
        with hold(self._lock, f"unmounting storage {self._name}", wait=2 * MOUNT_SECONDS):
            if not self._is_ours():
                return False
            try:
                run(["umount", "--", self.point], timeout=MOUNT_SECONDS, error=StorageError)
            except StorageError as exc:
                if self._answers():
                    raise StorageError(
                        f"cannot unmount storage {self._name!r}: {exc.message}",
                        hint=f"see who uses it with `fuser -vm {self.point}`",
                    ) from exc
                self._detach()
            self._forget()
            return True

    def _mount(self, make_point: bool) -> None:
        spec = self.spec
        if shutil.which(f"mount.{spec.type}", path=_SYSTEM_PATH) is None:
            package = _PACKAGES[spec.type]
            raise DependencyError(
                f"cannot mount {spec.source}: the program mount.{spec.type} is not installed",
                hint=f"install the package {package}",
            )
        if spec.password and not os.path.exists(self._password_file):
            raise StorageError(
                f"no password is known for {spec.source}",
                hint=f"declare the storage with a password; it is kept in {self._password_file}",
            )
        if make_point:
            os.makedirs(self.point, exist_ok=True)
        write_atomic(self._record, json.dumps({"point": self.point, "source": spec.source}), 0o600)
        options = ("-o", ",".join(spec.options)) if spec.options else ()
        try:
            run(
                ["mount", "-t", spec.type, *options, "--", spec.source, self.point],
                timeout=MOUNT_SECONDS,
                error=StorageError,
                hint=self._remedy(),
            )
        except BaseException:
            if self._topmost() is None:
                self._forget()
            raise

    def _topmost(self) -> Mounted | None:
        found = [one for one in mount_table() if one.point == self.point]
        return found[-1] if found else None

    def _is_it(self, found: Mounted) -> bool:
        return found.type.startswith(self.spec.type) and found.source.rstrip("/") == self.spec.source.rstrip("/")

    def _is_ours(self) -> bool:
        """Whether what is mounted there now was mounted by this program."""
        found = self._topmost()
        try:
            known: dict[str, Any] = json.loads(read_text(self._record) or "{}")
        except ValueError:
            known = {}
        return (
            found is not None
            and known.get("point") == found.point
            and str(known.get("source")).rstrip("/") == found.source.rstrip("/")
        )

    def _answers(self) -> bool:
        try:
            space(self.point)
        except StorageError:
            return False
        return True

    def _detach(self) -> None:
        """Take a dead mount out of the way; what is still open in it gets errors."""
        run(["umount", "-f", "-l", "--", self.point], timeout=MOUNT_SECONDS, error=StorageError)

    def _forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._record)

    def _remedy(self) -> str:
        server = self.spec.server
        if self.spec.type == "nfs":
            return f"check that {server} can be reached and exports it to this node: `showmount --exports {server}`"
        return f"check that {server} can be reached and has the share, and username, domain and password"


def mount_of(definition: StorageDef, host: Host) -> NetworkMount:
    """The mount behind the definition of a network storage."""
    name, paths = definition.name, host.paths
    password_file = paths.storage_password(name)
    return NetworkMount(
        name,
        network_mount(definition.type, definition.path, definition.content, definition.extra, password_file),
        password_file,
        paths.mount_record(name),
        os.path.join(paths.locks, f"mount-{name}.lock"),
    )
