# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Something that a TPM remembers: an index of its non-volatile memory, written and read by commands of TPM 2.0.

They are given by the guest to its own TPM, or to a swtpm that is started with a copy of a state.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import struct
import subprocess
from pathlib import Path

from helpers.domains import DomainNode
from helpers.process import wait_for

TPM = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"
"""The device in a domain's definition."""

_OWNER, _INDEX = 0x40000001, 0x01500001
_NO_PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
_DEFINE, _WRITE, _READ = 0x12A, 0x137, 0x14E
_OPEN_TO_OWNER = 0x02060006
"""Attributes of the index: owner and index may read and write, wrong passwords are not counted."""
_BYTES = 16


def guest_writes(node: DomainNode, text: bytes, *, first: bool = False) -> None:
    """Have the guest write to its TPM."""
    if first:
        assert _status(_by_guest(node, _define())) == 0
    assert _status(_by_guest(node, _write(text))) == 0


def guest_reads(node: DomainNode) -> bytes:
    """What the guest's TPM remembers."""
    return _content(_by_guest(node, _read()))


def volume_holds(volume: Path, scratch: Path) -> bytes:
    """What a TPM remembers whose state is in a volume like Proxmox VE's."""
    copy, data, control = scratch / "tpm.raw", scratch / "tpm.data", scratch / "tpm.ctrl"
    shutil.copy(volume, copy)
    argv = ["swtpm", "socket", "--tpm2", "--tpmstate", f"backend-uri=file://{copy}", "--flags", "startup-clear"]
    argv += ["--server", f"type=unixio,path={data}", "--ctrl", f"type=unixio,path={control}"]
    with subprocess.Popen(argv) as process:
        try:
            wait_for(data.exists, "swtpm")
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(str(data))
                stream.sendall(_read())
                return _content(stream.recv(4096))
        finally:
            process.terminate()


def _define() -> bytes:
    public = struct.pack(">IHIHH", _INDEX, 0x000B, _OPEN_TO_OWNER, 0, _BYTES)
    return _command(_DEFINE, struct.pack(">I", _OWNER), struct.pack(">HH", 0, len(public)) + public)


def _write(text: bytes) -> bytes:
    data = text.ljust(_BYTES, b"\0")
    return _command(_WRITE, struct.pack(">II", _OWNER, _INDEX), struct.pack(">H", len(data)) + data + bytes(2))


def _read() -> bytes:
    return _command(_READ, struct.pack(">II", _OWNER, _INDEX), struct.pack(">HH", _BYTES, 0))


def _command(code: int, handles: bytes, parameters: bytes) -> bytes:
    body = handles + _NO_PASSWORD + parameters
    return struct.pack(">HII", 0x8002, 10 + len(body), code) + body


def _status(answer: bytes) -> int:
    return int(struct.unpack_from(">HII", answer)[2])


def _content(answer: bytes) -> bytes:
    assert _status(answer) == 0, answer.hex()
    (length,) = struct.unpack_from(">H", answer, 14)
    return answer[16 : 16 + length].rstrip(b"\0")


def _by_guest(node: DomainNode, command: bytes) -> bytes:
    """The answer of the guest's TPM to a command."""
    octal = "".join(f"\\{byte:03o}" for byte in command)
    script = f"exec 3<>/dev/tpm0 && printf '{octal}' >&3 && head -c 4096 <&3 | base64"
    started = _agent(node, "guest-exec", {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True})
    found: dict[str, object] = {}

    def ended() -> bool:
        found.update(_agent(node, "guest-exec-status", {"pid": started["pid"]}))
        return bool(found["exited"])

    wait_for(ended, "the guest's TPM", 60)
    assert "out-data" in found, found
    return base64.b64decode(base64.b64decode(str(found["out-data"])))


def _agent(node: DomainNode, name: str, arguments: dict[str, object]) -> dict[str, object]:
    text = json.dumps({"execute": name, "arguments": arguments})
    answer: dict[str, object] = json.loads(node.daemon.virsh("qemu-agent-command", "machine", text))["return"]
    return answer
