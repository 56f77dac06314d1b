# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that take mails and webhooks on loopback and keep what they got.

    python3 tests/sinks.py FOLDER MAIL-PORT HOOK-PORT

writes each to a file of its own, ``FOLDER/mail-1.eml`` and ``FOLDER/hook-1.json``, until it is ended.
"""

from __future__ import annotations

import base64
import http.server
import os
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable


@dataclass(frozen=True)
class Mail:
    """One mail as it came over the wire; ``login`` is user and password."""

    sender: str
    recipients: list[str]
    data: bytes
    login: str = ""
    protected: bool = False


@dataclass(frozen=True)
class Hook:
    """One webhook."""

    path: str
    headers: dict[str, str]
    body: bytes


def make_certificate(folder: str, name: str = "localhost") -> str:
    """A file with a key and a certificate for ``name`` that nobody but itself vouches for."""
    path = os.path.join(folder, f"{name}.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", f"{path}.key", "-out", path],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return path


def _server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    return context


class Sink(socketserver.ThreadingTCPServer):
    """A server on a port of loopback; used as a context manager it serves until the block ends."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler], port: int) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.port = int(self.server_address[1])
        self.connections = 0

    def __enter__(self) -> Any:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our business."""


@dataclass
class Manners:
    """How a mail server behaves.

    :param login: user and password that it wants, in the form ``user:password``.
    :param refuses: addresses that it takes no mails for, each with the code of its answer.
    :param busy: how many times it sends clients away before it takes mails.
    :param drips: it answers with one byte in so many seconds.
    """

    tls: bool = False
    starttls: bool = False
    login: str = ""
    refuses: dict[str, int] = field(default_factory=dict)
    busy: int = 0
    drips: float = 0


class MailSink(Sink):
    """An SMTP server; what it got is in ``mails``."""

    def __init__(self, manners: Manners | None = None, certificate: str = "", port: int = 0) -> None:
        super().__init__(_MailHandler, port)
        self.manners = manners or Manners()
        self.context = _server_context(certificate) if certificate else None
        self.mails: list[Mail] = []
        self.took: Callable[[Mail], None] = lambda mail: None


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailSink

    def handle(self) -> None:
        manners = self.server.manners
        self.server.connections += 1
        self.login, self.protected = "", False
        self.sender, self.recipients = "", list[str]()
        if manners.tls:
            self._protect()
        if manners.drips:
            for byte in b"220-wait\r\n" * 1000:
                self.wfile.write(bytes([byte]))
                time.sleep(manners.drips)
        if self.server.connections <= manners.busy:
            self._say("421 come again later")
            return
        self._say("220 sink")
        while True:
            line = self.rfile.readline().decode("utf-8").rstrip("\r\n")
            if not line or not self._answer(line.partition(" ")[0].upper(), line):
                return

    def _answer(self, verb: str, line: str) -> bool:
        manners = self.server.manners
        argument = line.partition(":")[2].strip()
        address = argument.partition(">")[0].lstrip("<")
        if verb in ("EHLO", "HELO"):
            words = ["STARTTLS"] if manners.starttls and not self.protected else []
            words += ["AUTH PLAIN"] if manners.login else []
            lines = ["sink", *words]
            for number, word in enumerate(lines, 1):
                self._say(f"250{'-' if number < len(lines) else ' '}{word}")
        elif verb == "STARTTLS" and manners.starttls:
            self._say("220 go ahead")
            self._protect()
        elif verb == "AUTH":
            sent = base64.b64decode(line.split()[2]).decode().split("\0")
            self.login = ":".join(sent[1:])
            # As some servers do, it repeats what it was sent.
            self._say("235 welcome" if self.login == manners.login else f"535 not {self.login}")
        elif manners.login and not self.login:
            self._say("530 log in first")
        elif verb == "MAIL":
            self.sender, self.recipients = address, []
            self._say("250 ok")
        elif verb == "RCPT":
            if address in manners.refuses:
                self._say(f"{manners.refuses[address]} not now")
            else:
                self.recipients.append(address)
                self._say("250 ok")
        elif verb == "DATA":
            self._say("354 go on")
            self._take()
            self._say("250 ok")
        else:
            self._say("221 bye" if verb == "QUIT" else "250 ok")
            return verb != "QUIT"
        return True

    def _take(self) -> None:
        lines = []
        while True:
            line = self.rfile.readline()
            if line in (b".\r\n", b""):
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        mail = Mail(self.sender, self.recipients, b"".join(lines), self.login, self.protected)
        self.server.mails.append(mail)
        self.server.took(mail)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()

    def _protect(self) -> None:
        assert self.server.context is not None
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.protected = True


class HookSink(Sink):
    """An HTTP server; what it got is in ``hooks``.

    :param answers: the status of each answer in turn; the last one stays.
    """

    def __init__(self, answers: tuple[int, ...] = (204,), certificate: str = "", port: int = 0) -> None:
        super().__init__(_HookHandler, port)
        if certificate:
            self.socket = _server_context(certificate).wrap_socket(self.socket, server_side=True)
        self.answers = answers
        self.hooks: list[Hook] = []
        self.took: Callable[[Hook], None] = lambda hook: None


class _HookHandler(http.server.BaseHTTPRequestHandler):
    server: HookSink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hook = Hook(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        answers = self.server.answers
        status = answers[min(len(self.server.hooks), len(answers) - 1)]
        self.server.hooks.append(hook)
        self.server.took(hook)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def main() -> None:
    folder, mail_port, hook_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.makedirs(folder, exist_ok=True)
    mails, hooks = MailSink(port=mail_port), HookSink(port=hook_port)

    def put(name: str, data: bytes) -> None:
        path = os.path.join(folder, name)
        with open(f"{path}.new", "wb") as stream:
            stream.write(data)
        os.rename(f"{path}.new", path)

    mails.took = lambda mail: put(f"mail-{len(mails.mails)}.eml", mail.data)
    hooks.took = lambda hook: put(f"hook-{len(hooks.hooks)}.json", hook.body)
    with mails, hooks:
        threading.Event().wait()


if __name__ == "__main__":
    main()
