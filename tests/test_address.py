"""Addresses: parsing, and which of the introduced ones may be dialled."""

from __future__ import annotations

import pytest

from roletalk.address import MAX_URL_CHARS, Address, introduced, may_dial


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "target", "host_header"),
    [
        ("ws://127.0.0.1:9000", False, "127.0.0.1", 9000, "/", "127.0.0.1:9000"),
        ("wss://example.org", True, "example.org", 443, "/", "example.org:443"),
        ("ws://example.org", False, "example.org", 80, "/", "example.org:80"),
        ("ws://[::1]:9000/a?b=c", False, "::1", 9000, "/a?b=c", "[::1]:9000"),
        ("WS://Example.ORG:1/", False, "example.org", 1, "/", "example.org:1"),
        ("ws://my_host-1:65535/x/", False, "my_host-1", 65535, "/x/", "my_host-1:65535"),
        ("ws://h/?q", False, "h", 80, "/?q", "h:80"),
        ("ws://[fe80::1%25eth0]:1", False, "fe80::1%25eth0", 1, "/", "[fe80::1%25eth0]:1"),
    ],
)
def test_parse(url: str, secure: bool, host: str, port: int, target: str, host_header: str) -> None:
    address = Address.parse(url)
    assert (address.secure, address.host, address.port) == (secure, host, port)
    assert (address.target, address.path, address.url) == (target, None, url)
    assert address.host_header == host_header


def test_parse_a_unix_socket() -> None:
    address = Address.parse("ws+unix:///run/peer.sock")
    assert address.path == "/run/peer.sock"
    assert (address.host, address.port, address.secure) == ("", 0, False)
    assert address.host_header == "localhost"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "does not begin"),
        ("127.0.0.1:9000", "does not begin"),
        ("localhost:9000", "does not begin"),
        ("http://h:1", "write 'ws://h:1'"),
        ("https://h:1", "write 'wss://h:1'"),
        ("ftp://h:1", "does not begin"),
        ("ws://", "no host"),
        ("ws://:9000", "no host"),
        ("ws://h:0", "port 0"),
        ("ws://h:65536", "malformed"),
        ("ws://h:nine", "malformed"),
        ("ws://h:-1", "malformed"),
        ("ws://[::1", "malformed"),
        ("ws://user@h:1", "user info"),
        ("ws://user:word@h:1", "user info"),
        ("ws://@h:1", "user info"),
        ("ws://a b:1", "control characters or blanks"),
        ("ws://h:1\r\nX: y", "control characters or blanks"),
        ("ws://h\x00:1", "control characters or blanks"),
        ("ws://h:1/\x7f", "control characters or blanks"),
        ("ws://h%0d:1", "malformed host"),
        ("ws://h<>:1", "malformed host"),
        ("ws://-h:1", "malformed host"),
        ("ws://" + "h" * 64, "malformed host"),
        ("ws://[::1%\\eth0]:1", "malformed"),
        ("ws://[::1%]:1", "malformed"),
        ("ws://127.0.0.1%eth0:1", "malformed host"),
        ("ws://[::1]x:1", "malformed"),
        ("ws://[127.0.0.1]:1", "malformed"),
        ("ws://[v1.x]:1", "malformed"),
        ("ws://[::1]\udcfd", "malformed"),
        ("ws://h/?\udcfd", "UTF-8 cannot hold"),
        ("ws+unix://run/peer.sock", "absolute path"),
        ("ws+unix:", "absolute path"),
        ("ws+unix:///run/peer#1", "write %3F for \\? and %23 for #"),
        ("ws+unix:///run/peer?1", "write %3F for \\? and %23 for #"),
        ("ws+unix:///run/%00", "NUL"),
        ("ws://h/" + "x" * MAX_URL_CHARS, f"over {MAX_URL_CHARS}"),
    ],
)
def test_what_is_no_address(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        Address.parse(url)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", [None, b"ws://h:1", 5])
def test_an_address_is_a_str(url: object) -> None:
    with pytest.raises(TypeError):
        Address.parse(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        5,
        None,
        "",
        "http://10.0.0.1:1",
        "ws+unix:///run/peer.sock",
        "ws://user@10.0.0.1:1",
        "ws://10.0.0.1:1/\n",
        "ws://[::ffff:127.0.0.1]:1",
        "ws://[::ffff:7f00:1]:1",
        "wss://[0:0:0:0:0:ffff:10.0.0.1]:1",
    ],
)
def test_what_is_never_dialled(url: object) -> None:
    with pytest.raises(ValueError):
        introduced(url)


def test_what_may_be_introduced() -> None:
    for url in ("ws://10.0.0.1:1", "wss://example.org", "ws://[::1]:9000"):
        assert introduced(url) == Address.parse(url)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.1"),
        ("10.1.2.3", "10.9.9.9"),
        ("172.16.0.1", "172.31.255.255"),
        ("192.168.0.1", "192.168.9.9"),
        ("fd00::1", "fc00::2"),
        ("8.8.8.8", "8.8.8.8"),
        ("example.org", "example.org"),
    ],
)
def test_hosts_that_may_be_dialled(host: str, own: str) -> None:
    assert may_dial(host, frozenset({own}))
    assert may_dial(host, frozenset({"203.0.113.1", own}))


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "8.8.8.8"),
        ("10.0.0.1", "192.168.0.1"),
        ("10.0.0.1", "127.0.0.1"),
        ("8.8.8.8", "8.8.4.4"),
        ("169.254.169.254", "169.254.1.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("example.org", "sub.example.org"),
        ("::1", "127.0.0.1"),
        ("172.32.0.1", "172.16.0.1"),
    ],
)
def test_hosts_that_may_not_be_dialled(host: str, own: str) -> None:
    assert not may_dial(host, frozenset({own}))


def test_a_unix_socket_introduces_nobody() -> None:
    assert not may_dial("127.0.0.1", frozenset())
