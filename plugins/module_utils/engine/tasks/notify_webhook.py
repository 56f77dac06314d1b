# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Webhooks: what became of a run, sent as JSON by HTTP POST."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, Mapping
from urllib.parse import quote, urlsplit

from ..errors import NotificationError
from ..settings.notifications import SECRET, Target
from ..system.tls import tls_context

SOCKET_SECONDS = 15.0


def post(target: Target, secret: str | None, content: Mapping[str, Any]) -> None:
    """Send ``content``. Redirections are not followed: they would lead the secret to somebody else.

    :raises NotificationError: the server cannot be reached, or answers with another status than 2xx.
    """
    url = urlsplit(target.url)
    where = f"{url.scheme}://{url.netloc}"
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    if secret is not None:
        path = path.replace(SECRET, quote(secret, safe="/~:@!$'()*,=+;&?"))
    headers = {"Content-Type": "application/json", "User-Agent": "holdfast", "Connection": "close"}
    headers.update({name: value.replace(SECRET, secret or "") for name, value in target.headers.items()})
    try:
        connection = _connection(target)
        try:
            encoded = {name: value.encode() for name, value in headers.items()}
            connection.request("POST", path, json.dumps(content).encode(), encoded)
            status = connection.getresponse().status
        finally:
            connection.close()
    except ssl.SSLError as exc:
        raise NotificationError(
            f"cannot talk to {where} by TLS: {exc}",
            hint="correct the url; name the certificates of your own authority in ca_file",
        ) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise NotificationError(f"cannot reach {where}: {exc or type(exc).__name__}", temporary=True) from exc
    if not 200 <= status < 300:
        reason = http.client.responses.get(status, "unknown")
        raise NotificationError(
            f"{where} answered {status} {reason}",
            hint="correct url, headers and secret of the target" if status < 500 else "",
            temporary=status == 429 or status >= 500,
        )


def _connection(target: Target) -> http.client.HTTPConnection:
    url = urlsplit(target.url)
    if url.scheme == "http":
        return http.client.HTTPConnection(str(url.hostname), url.port, timeout=SOCKET_SECONDS)
    context = tls_context(target.ca_file)
    return http.client.HTTPSConnection(str(url.hostname), url.port, timeout=SOCKET_SECONDS, context=context)
