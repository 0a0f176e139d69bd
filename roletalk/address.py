"""Addresses of peers: parsing, checking, and whether an introduced one may be dialled.

docs/protocol.md, sections 1 and 8.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import sys
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = ["MAX_URL_CHARS", "Address", "check_unix_sockets", "may_dial"]

MAX_URL_CHARS = 2048

HAS_UNIX_SOCKETS: Final[bool] = sys.platform != "win32"  # Python has none for Windows

_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_CONTROL_OR_BLANK = re.compile(r"[\x00-\x20\x7f-\xa0]")
# RFC 6874, and what else a system may call an interface.
_ZONE = re.compile(r"[A-Za-z0-9._~%-]+\Z")
_NETLOC = re.compile(r"(?:[^\[\]]*@)?(?:\[[^\[\]]*\]|[^\[\]:]*)(?::[0-9]*)?\Z")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?\Z")

# What is written in place of a scheme of ours.
_MEANT = {
    "http": "ws",
    "tcp": "ws",
    "https": "wss",
    "tls": "wss",
    "ssl": "wss",
    "unix": "ws+unix",
    "http+unix": "ws+unix",
}

# An introduced address may be dialled when the introducer's own is in the same of these.
_NEIGHBOURHOODS = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8",
            "::1/128",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
        ),
    )
)


@dataclass(frozen=True)
class Address:
    """Where a peer listens: a host and port, or the path of a Unix socket."""

    url: str
    secure: bool
    host: str
    port: int
    target: str
    """What the HTTP request asks for: path and query."""
    path: str | None = None
    """Of a Unix socket; `host` and `port` are empty and 0 then."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse a ``ws://``, ``wss://`` or ``ws+unix://`` URL.

        Raises `TypeError` unless it is a ``str``, `ValueError` with what is wrong about it otherwise.
        """
        if not isinstance(url, str):
            raise TypeError(f"the URL must be a str, not {type(url).__name__}")
        shown = repr(url[:200])
        if len(url) > MAX_URL_CHARS:
            raise ValueError(f"the URL {shown} is over {MAX_URL_CHARS} characters")
        if _CONTROL_OR_BLANK.search(url):
            raise ValueError(f"the URL {shown} has control characters or blanks")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ValueError(f"the URL {shown} is malformed: {exc}") from None
        if parts.scheme == "ws+unix":
            if parts.netloc or not parts.path.startswith("/"):
                meant = "ws+unix:///" + (parts.netloc + parts.path).lstrip("/")
                raise ValueError(f"the URL {shown} needs an absolute path: write {meant[:200]!r}")
            if parts.query or parts.fragment:
                raise ValueError(
                    f"the URL {shown} has a query: in a path write %3F for ? and %23 for #"
                )
            path = unquote(parts.path, errors="surrogateescape")
            if "\0" in path:
                raise ValueError(f"the URL {shown} has a NUL in its path")
            return cls(url, False, "", 0, "/", path)
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError(
                f"the URL {shown} does not begin with ws://, wss:// or ws+unix://:"
                f" write {_meant(url)[:200]!r}"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                f"the URL {shown} has user info, which means nothing here: peers prove keys (add_key)"
            )
        host = parts.hostname or ""
        if not host:
            raise ValueError(f"the URL {shown} has no host: write {_meant(url)[:200]!r}")
        is_bracketed = "[" in parts.netloc
        is_host = _is_ip(host) if is_bracketed else _HOST_NAME.match(host)
        if not is_host or is_bracketed != (":" in host) or not _NETLOC.match(parts.netloc):
            raise ValueError(f"the URL {shown} has a malformed host")
        if port == 0:
            raise ValueError(
                f"the URL {shown} has port 0, which nobody listens on: dial listener.url"
            )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            target.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the URL {shown} has characters that UTF-8 cannot hold") from None
        return cls(url, parts.scheme == "wss", host, port or _DEFAULT_PORTS[parts.scheme], target)

    @property
    def place(self) -> str:
        """Host and port, or path: the same for all URLs that lead to one socket."""
        return self.path or f"{self.host.lower().rstrip('.')}:{self.port}"

    @property
    def host_header(self) -> str:
        """The value of the HTTP Host header."""
        if self.path is not None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def introduced(url: object) -> Address:
    """The address in an acquaint message; `ValueError` for what is never dialled (section 8)."""
    if not isinstance(url, str):
        raise ValueError("the address is no string")
    address = Address.parse(url)
    if address.path is not None:
        raise ValueError("the address is that of a Unix socket")
    ip = _ip(address.host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        raise ValueError("the address is an IPv4-mapped one")
    return address


def may_dial(host: str, introducer_hosts: frozenset[str]) -> bool:
    """The default `acquaint_filter`.

    Allows a host that is one of the introducer's own, or an address in the same loopback or private
    range as one of them.  Names are never looked up to decide.
    """
    if host in introducer_hosts:
        return True
    ip = _ip(host)
    if ip is None:
        return False
    for own in introducer_hosts:
        own_ip = _ip(own)
        if own_ip is not None and any(ip in net and own_ip in net for net in _NEIGHBOURHOODS):
            return True
    return False


def _meant(url: str) -> str:
    """The URL of ours that `url` is likely to stand for."""
    scheme, separator, rest = url.partition("://")
    if separator:
        return f"{_MEANT.get(scheme.lower(), 'ws')}://{rest}"
    if url.startswith("/"):
        return f"ws+unix://{url}"
    maimed = re.match(r"(?:(wss?):?(?=/))?/*", url, re.IGNORECASE)
    assert maimed is not None
    return f"{(maimed[1] or 'ws').lower()}://{url[maimed.end() :]}"


def _is_ip(host: str) -> bool:
    """Whether it is an IP address, an IPv6 one with or without a zone."""
    number, percent, zone = host.partition("%")
    ip = _ip(number)
    return ip is not None and (not percent or (ip.version == 6 and _ZONE.match(zone) is not None))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_unix_sockets() -> None:
    """Raises OSError where there are no Unix sockets."""
    if not HAS_UNIX_SOCKETS:
        raise OSError(errno.EAFNOSUPPORT, "this platform has no Unix sockets")
