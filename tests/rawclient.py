"""A raw WebSocket peer over blocking sockets: whatever a hostile program could say, this can.

It shares no code with the package under test.  Three layers, each usable alone:

* frames: `encode_frame` of tests/rawframes.py, `Connection.send_raw`, `send_frame`, `read_frame`;
* roletalk messages by hand: `request`, `stream_data`, `decode` and all else of tests/rawmessages.py;
* the legacy handshake from either side: `authenticate` (docs/protocol.md, section 4).

`dial` is the client side, `RawListener` the server side.  Every wait has a deadline in seconds and
raises `TimeoutError` past it; a connection that the other side ended raises `PeerGone`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from tests.rawframes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ZERO_MASK,
    Frame,
    apply_mask,
    close_payload,
    encode_frame,
    frame_header,
)
from tests.rawmessages import (
    ACQUAINT,
    CHALLENGE,
    CHUNK,
    CONFIRMED,
    ERROR,
    FINISH,
    MESSAGE,
    NULL,
    OPEN_READABLE,
    OPEN_WRITABLE,
    PROOF,
    QUOTA,
    REJECT,
    REQUEST,
    RESOLVE,
    ROLES,
    STREAM_DATA,
    STREAM_ERROR,
    STREAM_REJECT,
    STREAM_RESOLVE,
    Message,
    acquaint,
    answer,
    decode,
    json_message,
    message,
    number,
    open_stream,
    read_value,
    request,
    roles_message,
    stream_answer,
    stream_data,
    value,
)

__all__ = [
    "ACQUAINT",
    "BINARY",
    "CHALLENGE",
    "CHUNK",
    "CLOSE",
    "CONFIRMED",
    "CONTINUATION",
    "ERROR",
    "FINISH",
    "MESSAGE",
    "NULL",
    "OPEN_READABLE",
    "OPEN_WRITABLE",
    "PING",
    "PONG",
    "PROOF",
    "QUOTA",
    "REJECT",
    "REQUEST",
    "RESOLVE",
    "ROLES",
    "STREAM_DATA",
    "STREAM_ERROR",
    "STREAM_REJECT",
    "STREAM_RESOLVE",
    "TEXT",
    "WAIT",
    "WEBSOCKET_GUID",
    "ZERO_MASK",
    "Connection",
    "Frame",
    "HandshakeRefused",
    "Message",
    "PeerGone",
    "RawListener",
    "accept_key",
    "acquaint",
    "answer",
    "apply_mask",
    "authenticate",
    "close_payload",
    "connect",
    "decode",
    "dial",
    "encode_frame",
    "frame_header",
    "json_message",
    "message",
    "new_challenge",
    "number",
    "open_stream",
    "peer_data",
    "prove",
    "read_upgrade",
    "read_value",
    "request",
    "roles_message",
    "stream_answer",
    "stream_data",
    "upgrade_request",
    "upgrade_response",
    "value",
]

WAIT = 60.0  # s that an answer may take, on a busy machine

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class PeerGone(ConnectionError):
    """The other side ended the connection.

    `code` is that of its close frame, 1005 for one without a code, ``None`` when the socket just went.
    """

    def __init__(self, code: int | None, text: str = "") -> None:
        super().__init__(f"gone: code {code} {text!r}")
        self.code = code
        self.text = text


class HandshakeRefused(Exception):
    """The other side answered the handshake with message 0, an error."""


# -- a connection ------------------------------------------------------------------------------------


class Connection:
    """A TCP connection on which anything may be said, before and after the WebSocket upgrade.

    `masking` says whether `send_frame` masks by default (clients do).  `close_code` is that of the
    other side's close frame, once it was read; `received` holds the messages that were read;
    `peer_id` is what this side called itself in `authenticate`.
    """

    def __init__(self, sock: socket.socket, *, masking: bool) -> None:
        self.sock = sock
        self.masking = masking
        self.peer_id = ""
        self.received: list[bytes] = []
        self.close_code: int | None = None
        self.close_text = ""
        self._buffer = bytearray()
        self._last_correlation = 0x1000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()

    # -- bytes

    def send_raw(self, data: bytes, *, timeout: float = WAIT) -> None:
        """All of `data`, or `TimeoutError` when the other side stopped reading, or `PeerGone`."""
        self.sock.settimeout(timeout)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerGone(self.close_code, str(error)) from error

    def read_raw(self, *, timeout: float = WAIT) -> bytes:
        """What comes next, at least one byte; empty at the end of the stream."""
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data
        return self._receive(time.monotonic() + timeout)

    def has_more(self) -> bool:
        """Whether something can be read at once."""
        return bool(self._buffer) or bool(select.select([self.sock], [], [], 0)[0])

    def _receive(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came")
        self.sock.settimeout(left)
        try:
            return self.sock.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError:
            return b""  # reset: as gone as after a clean end

    def _read_exactly(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            data = self._receive(deadline)
            if not data:
                raise PeerGone(self.close_code, self.close_text)
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def read_until(self, mark: bytes, *, timeout: float = WAIT, limit: int = 1 << 20) -> bytes:
        """Everything up to and including `mark`."""
        deadline = time.monotonic() + timeout
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise ValueError(f"no {mark!r} in {limit} bytes")
            data = self._receive(deadline)
            if not data:
                raise PeerGone(None, bytes(self._buffer[:200]).decode("latin-1"))
            self._buffer += data
        return self._read_exactly(at + len(mark), deadline)

    # -- frames

    def send_frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        mask: bytes | None = None,
        timeout: float = WAIT,
    ) -> None:
        """One frame, masked with a fresh key as its side must, unless `mask` names one."""
        key = mask if mask is not None else os.urandom(4) if self.masking else None
        self.send_raw(encode_frame(opcode, payload, fin=fin, rsv=rsv, mask=key), timeout=timeout)

    def send(self, payload: bytes, *, timeout: float = WAIT) -> None:
        """One whole binary message."""
        self.send_frame(BINARY, payload, timeout=timeout)

    def send_fragments(self, pieces: Iterable[bytes], opcode: int = BINARY) -> None:
        """One message as a frame for each of `pieces`."""
        whole = list(pieces)
        for index, piece in enumerate(whole):
            last = index == len(whole) - 1
            self.send_frame(CONTINUATION if index else opcode, piece, fin=last)

    def read_frame(self, *, timeout: float = WAIT) -> Frame:
        """The next frame of any kind.  A close frame is returned, too, and its code remembered."""
        deadline = time.monotonic() + timeout
        first, second = self._read_exactly(2, deadline)
        size = second & 127
        if size >= 126:
            size = int.from_bytes(self._read_exactly(2 if size == 126 else 8, deadline), "big")
        mask = self._read_exactly(4, deadline) if second & 0x80 else None
        payload = apply_mask(self._read_exactly(size, deadline), mask or ZERO_MASK)
        opcode = first & 15
        if opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005
            self.close_text = payload[2:].decode("utf-8", "replace")
        return Frame(bool(first & 0x80), first >> 4 & 7, opcode, mask, payload)

    def read_message(self, *, timeout: float = WAIT) -> bytes:
        """The next whole data message; pings met on the way are answered, pongs skipped.

        Raises `PeerGone` at a close frame or at the end of the stream.
        """
        deadline = time.monotonic() + timeout
        parts: list[bytes] = []
        while True:
            frame = self.read_frame(timeout=deadline - time.monotonic())
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise PeerGone(self.close_code, self.close_text)
            elif frame.opcode != PONG:
                parts.append(frame.payload)
                if frame.fin:
                    self.received.append(b"".join(parts))
                    return self.received[-1]

    def read_kind(self, kind: int, *, timeout: float = WAIT) -> bytes:
        """The next message of type `kind`; those of other types are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.read_message(timeout=deadline - time.monotonic())
            if found and found[0] == kind:
                return found

    def read_answer(self, correlation: int, *, timeout: float = WAIT) -> Message:
        """The answer (102, 105, 107 or 108) to `correlation`."""
        deadline = time.monotonic() + timeout
        while True:
            raw = self.read_message(timeout=deadline - time.monotonic())
            if raw and raw[0] in (RESOLVE, REJECT, STREAM_RESOLVE, STREAM_REJECT):
                found = decode(raw)
                if found.correlation == correlation:
                    return found

    def ask(self, role: str, event: str, data: object = None, *, timeout: float = WAIT) -> Message:
        """A request with a correlation of its own, and its answer."""
        self._last_correlation += 1
        self.send(request(role, event, self._last_correlation, value(data)), timeout=timeout)
        return self.read_answer(self._last_correlation, timeout=timeout)

    # -- the end

    def shut(self, code: int = 1000, text: str = "") -> None:
        """A close frame."""
        self.send_frame(CLOSE, close_payload(code, text))

    def wait_closed(self, *, timeout: float = WAIT, answer_close: bool = True) -> int | None:
        """Read on until the other side has really ended the TCP connection.

        Returns the code of its close frame, or None if it sent none.  `answer_close` False leaves its
        close frame unanswered, as a hostile peer would.
        """
        deadline = time.monotonic() + timeout
        answered = not answer_close
        while True:
            try:
                frame = self.read_frame(timeout=deadline - time.monotonic())
                if frame.opcode == CLOSE and not answered:
                    answered = True
                    self.send_frame(CLOSE, frame.payload[:2])
            except PeerGone:
                return self.close_code

    def finish_sending(self) -> None:
        """End this direction of the TCP connection; what the other side says can still be read."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise PeerGone(self.close_code, str(error)) from error

    def drop(self) -> None:
        """Close the socket, without a word."""
        self.sock.close()


# -- both sides of the upgrade -----------------------------------------------------------------------


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())


def upgrade_request(
    *,
    method: str = "GET",
    path: str = "/",
    version: str = "HTTP/1.1",
    drop: Sequence[str] = (),
    extra: Sequence[str] = (),
    **changed: str,
) -> bytes:
    """An upgrade request.  `drop` names headers to leave out; `changed` replaces values
    (``sec_websocket_version="8"``); `extra` adds header lines."""
    headers = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    for name, new in changed.items():
        headers["-".join(part.capitalize() for part in name.split("_"))] = new
    headers = {{"Sec-Websocket-Key": "Sec-WebSocket-Key"}.get(k, k): v for k, v in headers.items()}
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {text}" for name, text in headers.items() if name not in drop]
    lines += extra
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def connect(port: int, *, host: str = "127.0.0.1", timeout: float = WAIT) -> Connection:
    """A bare TCP connection, nothing said yet."""
    return Connection(socket.create_connection((host, port), timeout), masking=True)


def dial(port: int, *, host: str = "127.0.0.1", timeout: float = WAIT) -> Connection:
    """A TCP connection, upgraded."""
    connection = connect(port, host=host, timeout=timeout)
    try:
        connection.send_raw(upgrade_request(), timeout=timeout)
        head = connection.read_until(b"\r\n\r\n", timeout=timeout)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise PeerGone(None, head.decode("latin-1"))
    except BaseException:
        connection.drop()
        raise
    return connection


def upgrade_response(
    key: bytes, *, accept: bytes | None = None, extra: Sequence[str] = (), drop: Sequence[str] = ()
) -> bytes:
    """The 101 answer; `accept` replaces the right Sec-WebSocket-Accept."""
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": (accept or accept_key(key)).decode("latin-1"),
    }
    lines = ["HTTP/1.1 101 Switching Protocols"]
    lines += [f"{name}: {text}" for name, text in headers.items() if name not in drop]
    lines += extra
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


class RawListener:
    """A listening socket on 127.0.0.1 that accepts only when told to.

    Connections that nobody accepted wait in its backlog, so `pending` counts who has dialled it.
    """

    def __init__(self, port: int = 0, *, backlog: int = 64) -> None:
        self.sock = socket.socket()
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.bind(("127.0.0.1", port))
            self.sock.listen(backlog)
        except OSError:
            self.sock.close()
            raise
        self.port: int = self.sock.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"

    def __enter__(self) -> RawListener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    def accept(self, *, timeout: float = WAIT) -> Connection:
        """The next TCP connection, nothing read of it yet."""
        self.sock.settimeout(timeout)
        return Connection(self.sock.accept()[0], masking=False)

    def accept_upgraded(self, *, timeout: float = WAIT) -> Connection:
        """The next connection, upgraded."""
        connection = self.accept(timeout=timeout)
        try:
            connection.send_raw(upgrade_response(read_upgrade(connection, timeout=timeout)))
        except BaseException:
            connection.drop()
            raise
        return connection

    def pending(self) -> int:
        """How many connections came since the last call; they are dropped."""
        self.sock.settimeout(0)
        count = 0
        while True:
            try:
                self.sock.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


def read_upgrade(connection: Connection, *, timeout: float = WAIT) -> bytes:
    """Read an upgrade request; its Sec-WebSocket-Key."""
    head = connection.read_until(b"\r\n\r\n", timeout=timeout)
    for line in head.split(b"\r\n")[1:]:
        name, _, text = line.partition(b":")
        if name.strip().lower() == b"sec-websocket-key":
            return text.strip()
    raise ValueError(f"no key in {head!r}")


# -- the legacy handshake (docs/protocol.md, section 4) ----------------------------------------------


def new_challenge() -> str:
    """32 random bytes as 64 hex characters."""
    return os.urandom(32).hex()


def prove(key: str, challenge: str) -> str:
    """The legacy proof of `key` for `challenge`."""
    return hmac.new(key.encode(), challenge.encode(), hashlib.sha256).hexdigest()


def peer_data(
    peer_id: str | None = None, *, roles: Sequence[str] = (), **changed: Any
) -> dict[str, Any]:
    """What message 3 carries; `changed` replaces top-level keys."""
    data: dict[str, Any] = {
        "id": peer_id or f"raw-{uuid.uuid4().hex}",
        "name": "raw",
        "roles": list(roles),
        "friendly": True,
        "meta": {
            "os": "linux",
            "runtime": "nodejs v20.20.2",
            "time": int(time.time() * 1000),
            "uptime": 1,
            "protocol": "2.0.0",
        },
        "tags": {},
    }
    data.update(changed)
    return data


def authenticate(
    connection: Connection,
    key: str | None = None,
    key_id: str = "k1",
    *,
    data: dict[str, Any] | None = None,
    timeout: float = WAIT,
) -> dict[str, Any]:
    """Go through the handshake as an honest legacy peer, with a key or (None) without.

    The same on both sides of a connection.  Returns the other side's peer data; raises
    `HandshakeRefused` with its message 0, `PeerGone` if it just closes.
    """
    deadline = time.monotonic() + timeout
    mine = new_challenge()
    data = peer_data() if data is None else data
    connection.peer_id = data["id"]
    confirmed = json_message(CONFIRMED, data)
    if key is None:
        connection.send(confirmed)
    else:
        connection.send(json_message(CHALLENGE, {"challenge": mine, "ids": [key_id]}))
    sent_confirmed = key is None
    theirs: dict[str, Any] | None = None
    while theirs is None or not sent_confirmed:
        raw = connection.read_message(timeout=deadline - time.monotonic())
        kind, body = raw[0], json.loads(raw[1:])
        if kind == ERROR:
            raise HandshakeRefused(body)
        if kind == CHALLENGE:
            if key is None or key_id not in body["ids"]:
                raise HandshakeRefused(f"it wants one of {body['ids']}")
            proof = prove(key, body["challenge"])
            connection.send(json_message(PROOF, {"proof": proof, "id": key_id}))
        elif kind == PROOF:
            if key is None or not hmac.compare_digest(body["proof"], prove(key, mine)):
                raise HandshakeRefused("a wrong proof")
            connection.send(confirmed)
            sent_confirmed = True
        elif kind == CONFIRMED:
            theirs = body
        else:
            raise HandshakeRefused(f"message {kind} in the handshake")
    return theirs
