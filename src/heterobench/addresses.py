"""Addresses of servers: what of them people may see, and the way there.

A user name or a token before the "@" lets others in as much as a password does, so all of it is left out of messages,
links, logs and records. Connections go through the proxies of the environment, those to this machine never.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.request
from base64 import b64encode
from http.client import HTTPResponse
from urllib.parse import unquote, urlsplit

from heterobench.errors import ConfigurationError, without_credentials

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check(setting: str, url: str) -> None:
    """Raise ConfigurationError unless what stands before the "@" of `url` can be told from the host behind it.

    The message does not show the address: in one that cannot be taken apart nobody knows where a password ends.
    """
    if "@" not in url:
        return
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named or "@" in f"{parts.path}{parts.query}{parts.fragment}" or re.search(r"\s", url):
        raise ConfigurationError(
            f"{setting}: this is no address of the form scheme://user:password@host:port/path (not shown here: it may "
            "hold a password). What to do: write special characters of user and password in percent form: / as %2F, "
            "# as %23, ? as %3F, @ as %40, a space as %20"
        )


def apart(url: str) -> tuple[str, str]:
    """An address without its user and password, and the value of the header Authorization ("" where it has none)."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return parts._replace(netloc=host).geturl() if at else url, f"Basic {b64encode(pair).decode()}" if at else ""


def connect_directly_to_this_machine() -> None:
    """Tell every client in this process and its children that loopback needs no proxy.

    Python's own client and `requests` read the small name first, other programs the large one.
    """
    set_before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [name.strip() for name in set_before.split(",") if name.strip()]
    if "*" not in known:
        text = ",".join(dict.fromkeys([*known, *LOOPBACK]))
        os.environ.update(no_proxy=text, NO_PROXY=text)


def open_url(url: str, timeout: float) -> HTTPResponse:
    """Open an address for reading; with its user and password where it names them. Raises OSError, ValueError."""
    connect_directly_to_this_machine()
    bare, authorization = apart(url)
    # Some hosts refuse the default agent name of urllib.
    request = urllib.request.Request(bare, headers={"User-Agent": "heterobench"})
    if authorization:
        request.add_unredirected_header("Authorization", authorization)  # another host gets no password of this one
    return urllib.request.urlopen(request, timeout=timeout)


class Formatter(logging.Formatter):
    """A line of a log, and the traceback below it, without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))
