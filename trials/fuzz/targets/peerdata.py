"""What a peer says of itself: message 3 of the handshake (docs/protocol.md, section 4)."""

from __future__ import annotations

import json
from typing import Final

from roletalk.auth import Challenges, Handshake, HandshakeError, KeyRing
from roletalk.unit import _is_node_22

DICTIONARY: Final = (
    b'"id":', b'"name":', b'"roles":[', b'"friendly":true', b'"meta":{', b'"os":', b'"runtime":"GO"',
    b'"nodejs v22.', b'"protocol":"2.0.0"', b'"tags":{', b'"rt2":{"v":2,"features":[', b'"time":',
    b"\\u0000", b"\\ud800", b"1e999", b"null",
)  # fmt: skip


def test_one(data: bytes) -> None:
    handshake = Handshake(
        keys=KeyRing(),
        dialer=bool(len(data) & 1),
        peer_id="ours",
        make_peer_data=lambda: {"roles": []},
        challenges=Challenges(),
        require_rt2=lambda _: False,
    )
    handshake.start()
    try:
        assert handshake.receive(b"\x03" + data) == []
    except HandshakeError as error:
        assert error.close_code in (1009, 4001, 4006, 4007)
        assert not handshake.done
        return
    assert handshake.done
    told = json.loads(data.decode("utf-8", "replace"))
    info = handshake.result.peer
    assert info.id == told["id"] != "ours"
    assert 0 < len(info.id) <= 256
    assert info.name == (told.get("name") or "")
    assert info.roles == tuple(dict.fromkeys(told["roles"]))
    assert info.friendly == bool(told.get("friendly"))
    assert dict(info.tags) == (told.get("tags") or {})
    assert str(told["meta"]["protocol"]).startswith(("2", "02", "0"))
    assert set(info.meta) <= set(told["meta"])
    assert handshake.result.key_id is None
    assert handshake.result.rt2 is False
    _is_node_22(str(info.meta.get("runtime", "")))
