# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A qemu-storage-daemon that exports images over a unix socket while a block runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from ..errors import GuestError
from ..system.process import spawn

Image = tuple[str, str, str]
"""Name, path and format (``raw`` or ``qcow2``) of an image to be exported."""

_START_SECONDS = 20
_STOP_SECONDS = 20


@contextlib.contextmanager
def serve(
    images: Sequence[Image], socket: str, *, writable: bool, limits: Mapping[str, int] | None = None
) -> Iterator[None]:
    """Export images under their names; the daemon does not outlive this process.

    :param socket: path of the unix socket to be made, in place of an old one.
    :param limits: by name: how many bytes of a raw image are exported, if not all.
    :raises GuestError: an image cannot be opened, for example because a running VM uses it.
    """
    for _name, path, _fmt in images:
        if not os.path.exists(path):
            raise GuestError(
                f"cannot open the disk image {path}: it does not exist",
                hint="see whether its storage is mounted, and what the guest's definition says",
            )
    # The daemon writes this file when all images are exported; the socket alone is there earlier.
    ready = ready_file(socket)
    _remove(socket, ready)
    argv = ["qemu-storage-daemon", "--pidfile", ready, "--nbd-server", f"addr.type=unix,addr.path={socket}"]
    for name, path, fmt in images:
        driver = "host_device" if Path(path).is_block_device() else "file"
        file = {"driver": driver, "filename": path, "read-only": not writable, "discard": "unmap"}
        node: dict[str, Any] = {
            "driver": fmt,
            "node-name": name,
            "read-only": not writable,
            "discard": "unmap",
            "file": file,
        }
        if fmt == "raw" and name in (limits or {}):
            node["size"] = (limits or {})[name]
        argv += ["--blockdev", json.dumps(node)]
        argv += [
            "--export",
            f"type=nbd,id=e-{name},node-name={name},name={name},writable={'on' if writable else 'off'}",
        ]
    with tempfile.TemporaryFile() as errors:
        daemon = spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            _wait_ready(daemon, ready, errors, [path for _name, path, _fmt in images])
            yield
        finally:
            daemon.terminate()
            try:
                daemon.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
            _remove(socket, ready)


def ready_file(socket: str) -> str:
    """The file beside a daemon's socket that tells when it is ready."""
    return f"{socket}.pid"


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _wait_ready(daemon: subprocess.Popen[bytes], ready: str, errors: Any, paths: list[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not os.path.exists(ready):
        if daemon.poll() is not None or time.monotonic() > deadline:
            errors.seek(0)
            why = errors.read()[-1000:].decode("utf-8", "replace").strip() or "it did not answer"
            raise GuestError(
                f"cannot open {', '.join(paths)}: qemu-storage-daemon: {why}",
                hint="a lock error means that a running VM or another backup uses the image",
            )
        time.sleep(0.01)
