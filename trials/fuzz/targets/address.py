"""Addresses: any text parsed, and what may be dialled of it (docs/protocol.md, sections 1 and 8)."""

from __future__ import annotations

import ipaddress
from typing import Final

from roletalk.address import MAX_URL_CHARS, Address, introduced, may_dial

DICTIONARY: Final = (
    b"ws://", b"wss://", b"ws+unix:///", b"http://", b"[::1]", b"[::ffff:127.0.0.1]", b"127.0.0.1",
    b"10.0.0.1", b"localhost", b"%25eth0", b"user:pass@", b":65535", b":0", b"?query", b"#part", b"//",
    b"\\", b"%0d%0a", b"xn--", b"\xe2\x80\xae", b"\xef\xbc\x8e", b"@",
)  # fmt: skip
OWN: Final = frozenset({"10.1.2.3", "127.0.0.1", "fd00::1", "example.org"})


def test_one(data: bytes) -> None:
    url = data.decode("utf-8", "surrogateescape")
    try:
        address = Address.parse(url)
    except ValueError as error:
        assert str(error).isprintable()
        _must_refuse(url)
        return
    assert address.url == url
    assert len(url) <= MAX_URL_CHARS
    if address.path is not None:
        assert address.path.startswith("/")
        assert url.partition(":")[0].lower() == "ws+unix"
        _must_refuse(url)
        return
    assert 0 < address.port < 65_536
    for text in (address.host, address.host_header, address.target, address.place):
        assert text
        # Nothing that could end a line of the request, or part it.
        assert not any(ord(character) <= 32 or 127 <= ord(character) <= 160 for character in text)
    address.target.encode()
    address.host_header.encode("ascii")
    assert address.target.startswith("/")
    assert not set(address.host) & set("@/?#\\")
    assert url.partition(":")[0].lower() == ("wss" if address.secure else "ws")
    # The same place by another way of writing it.
    again = Address.parse(f"ws://{address.host_header}{address.target}")
    assert (again.host, again.port, again.target) == (address.host, address.port, address.target)
    assert again.place == address.place
    _check_dialled(url)


def _must_refuse(url: str) -> None:
    try:
        introduced(url)
    except ValueError:
        return
    raise AssertionError("an address that is none may not be introduced")


def _check_dialled(url: str) -> None:
    try:
        address = introduced(url)
    except ValueError:
        return
    if not may_dial(address.host, OWN) or address.host in OWN:
        return
    # Only a number can be told to be near by.
    ip = ipaddress.ip_address(address.host)
    assert ip.is_loopback or ip.is_private
    assert getattr(ip, "ipv4_mapped", None) is None
