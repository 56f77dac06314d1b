# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a TLS connection believes."""

from __future__ import annotations

import ssl

from ..errors import ConfigError


def tls_context(ca_file: str) -> ssl.SSLContext:
    """A context that checks certificate and name of the server.

    :param ca_file: certificates of the authorities to believe; empty means the system's.
    :raises ConfigError: the file holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as exc:
        raise ConfigError(
            f"cannot read certificates from {ca_file}: {exc.strerror or exc}", hint="correct ca_file"
        ) from exc
