# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mails about runs: by the local ``sendmail``, or to a mail server."""

from __future__ import annotations

import os
import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formataddr, formatdate, make_msgid
from typing import Sequence

from ..errors import NotificationError
from ..settings.notifications import MODES, Target
from ..system.process import run
from ..system.tls import tls_context
from .run_message import Message

AUTHOR = "vzdump backup tool"
LOCAL_SENDER = "root"
SENDMAIL_PATHS = "/usr/sbin:/usr/lib"
"""Where ``sendmail`` is when it is not on the path."""
SENDMAIL_SECONDS = 60
SOCKET_SECONDS = 15.0


def make_mail(message: Message, sender: str, recipients: Sequence[str], node: str) -> EmailMessage:
    """A mail with the text, and the same as HTML."""
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = message.subject
    mail["From"] = formataddr((AUTHOR, sender))
    mail["To"] = ", ".join(recipients)
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain=node)
    mail["Auto-Submitted"] = "auto-generated"
    # Logs have lines that are longer than mail servers take.
    mail.set_content(message.text, cte="quoted-printable")
    mail.add_alternative(message.html, subtype="html", cte="quoted-printable")
    return mail


def send_locally(message: Message, sender: str, recipients: Sequence[str], node: str) -> None:
    """Hand the message to the node's own mail system.

    :raises HoldfastError: there is none, or it refuses.
    """
    mail = make_mail(message, sender, recipients, node)
    run(
        ["sendmail", "-oi", "-f", sender, "--", *recipients],
        stdin=mail.as_bytes(policy=mail.policy.clone(linesep="\n")),
        timeout=SENDMAIL_SECONDS,
        env={"PATH": f"{os.environ.get('PATH', os.defpath)}:{SENDMAIL_PATHS}"},
        error=NotificationError,
        hint="look into the log of the node's mail system, or declare a target of the type smtp",
    )


def send_to_server(target: Target, password: str | None, message: Message, node: str) -> None:
    """Hand the message to a mail server.

    :raises NotificationError: it cannot be reached, or refuses.
    """
    mail = make_mail(message, target.from_address, target.mailto, node)
    port = target.port or MODES[target.mode]
    where = f"{target.server}:{port}"
    try:
        with _connect(target, port, node) as server:
            if password is not None:
                server.login(target.username, password)
            refused = server.send_message(mail, target.from_address, list(target.mailto))
    except smtplib.SMTPAuthenticationError as exc:
        # Not what the server says: it may repeat what it was sent.
        raise NotificationError(
            f"the mail server {where} refuses the user {target.username!r} ({exc.smtp_code})",
            hint="correct username and password",
        ) from exc
    except smtplib.SMTPRecipientsRefused as exc:
        temporary = all(400 <= code < 500 for code, _answer in exc.recipients.values())
        raise NotificationError(_refusal(where, exc.recipients), temporary=temporary) from exc
    except smtplib.SMTPResponseException as exc:
        raise NotificationError(
            f"the mail server {where} refuses the mail: {exc.smtp_code} {_text(exc.smtp_error)}",
            temporary=400 <= exc.smtp_code < 500,
        ) from exc
    except ssl.SSLError as exc:
        raise NotificationError(
            f"cannot talk to the mail server {where} by TLS: {exc}",
            hint="correct server, port and mode; name the certificates of your own authority in ca_file",
        ) from exc
    except smtplib.SMTPServerDisconnected as exc:
        raise NotificationError(f"the mail server {where} hung up: {exc}", temporary=True) from exc
    except smtplib.SMTPException as exc:
        raise NotificationError(f"the mail server {where} cannot do what is wanted: {exc}") from exc
    except OSError as exc:
        raise NotificationError(f"cannot reach the mail server {where}: {exc}", temporary=True) from exc
    if refused:
        # The others have it, and must not get it again.
        raise NotificationError(_refusal(where, refused))


def _connect(target: Target, port: int, node: str) -> smtplib.SMTP:
    # Without local_hostname the node's name would be looked up, which may take long.
    if target.mode == "tls":
        context = tls_context(target.ca_file)
        return smtplib.SMTP_SSL(target.server, port, local_hostname=node, timeout=SOCKET_SECONDS, context=context)
    server = smtplib.SMTP(target.server, port, local_hostname=node, timeout=SOCKET_SECONDS)
    if target.mode == "starttls":
        try:
            server.starttls(context=tls_context(target.ca_file))
        except BaseException:
            server.close()
            raise
    return server


def _refusal(where: str, recipients: dict[str, tuple[int, bytes]]) -> str:
    told = ", ".join(f"{address} ({code} {_text(answer)})" for address, (code, answer) in recipients.items())
    return f"the mail server {where} does not take mails for {told}"


def _text(answer: bytes | str) -> str:
    """What a server says, on one line."""
    text = answer.decode("utf-8", "backslashreplace") if isinstance(answer, bytes) else answer
    return " ".join(text.split())[:200]
