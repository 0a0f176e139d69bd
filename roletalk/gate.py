"""From a socket to an authenticated connection.

A `Gate` is the protocol of a transport until picows has upgraded it to a WebSocket; then the `Connection`
is.  An `Admission` takes one connection through the handshake of docs/protocol.md, section 4, within its
time, and afterwards hands what is not on the hot path to the peer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from picows import (
    WSListener,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # compiled, not in its stub

from ._frame import STOOD_STILL, Connection, ConnectionState
from ._peer import clock
from ._session import Link
from ._text import printable
from ._wire import CloseCode
from .auth import Challenges, Handshake, HandshakeError, ReachedItselfError
from .errors import AuthError, ConnectError, ProtocolError, RoletalkError
from .lobby import leaves_descriptors
from .remote_log import RemoteLog
from .unit import STREAMS

if TYPE_CHECKING:
    from .dialer import Dialer
    from .listener import Listener
    from .peer import Peer
    from .unit import Unit

# Messages 1, 2 and 3, with two of them at their limit.
STRANGER_BYTES: Final = (2 * 64 + 16) * 1024
UPGRADE_BYTES: Final = 16 * 1024  # of an HTTP request or response; picows refuses what is longer
PICOWS_LINES: Final = 1000  # of its log in a minute
HEADERS_END: Final = b"\r\n\r\n"
# How a TLS handshake or alert begins, and no HTTP (RFC 8446, 5.1).
TLS_RECORDS: Final = (b"\x16\x03", b"\x15\x03")
NO_TLS_HERE: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

CHALLENGES: Final = Challenges()
"""Of the whole process: a challenge of ours that comes back is an attack (section 8)."""


MAX_RT2_MEMORY: Final = 65_536


class _Rt2Memory:
    """The unit ids and dialled addresses that have spoken rt2 to this process (section 9).

    None of them is accepted with a legacy proof again; the oldest is forgotten beyond the limit.
    """

    def __init__(self) -> None:
        # A plain dict takes the longer to find its oldest key, the more of them it has forgotten.
        self._spoke: OrderedDict[tuple[str, str], None] = OrderedDict()

    def add(self, who: tuple[str, str]) -> None:
        self._spoke.setdefault(who)
        if len(self._spoke) > MAX_RT2_MEMORY:
            self._spoke.popitem(last=False)

    def clear(self) -> None:
        self._spoke.clear()

    def __contains__(self, who: object) -> bool:
        return who in self._spoke


SPOKE_RT2: Final = _Rt2Memory()


class _QuietLog:
    """picows's logger: whatever a remote peer can provoke is worth a debug line, no more.

    One object for all connections: picows would make a new Logger for each.
    """

    def __init__(self) -> None:
        self._log = RemoteLog(PICOWS_LINES, PICOWS_LINES, logger="roletalk.picows")

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the name that logging gave it
        return False

    def log(self, level: int, text: str, *args: object) -> None:
        self._log.log(logging.DEBUG, "an upgrade", text, *args)

    def debug(self, text: str, *args: object) -> None:
        self.log(logging.DEBUG, text, *args)

    info = warning = error = exception = debug


_PICOWS_LOG: Final = _QuietLog()


class _Upgrade(WSListener):
    """What picows hears of that it upgraded a transport."""

    is_done = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.is_done = True


def _answer(
    request: WSUpgradeRequest, response: WSUpgradeResponse | None = None
) -> WSListener | WSUpgradeResponseWithListener:
    """picows's answer to an upgrade request; it knows drafts of WebSocket that we do not speak."""
    versions = request.headers.getall("sec-websocket-version", [])
    # With none picows refuses by itself.
    if response is not None or (len(versions) <= 1 and all(v == "13" for v in versions)):
        return _Upgrade()
    refusal = WSUpgradeResponse.create_error_response(
        HTTPStatus.UPGRADE_REQUIRED, b"RFC 6455 only", {"Sec-WebSocket-Version": "13"}
    )
    return WSUpgradeResponseWithListener(refusal, None)


class _SocketWithoutTcp:
    """A Unix socket, or what has no socket at all, that lets picows set its TCP options in vain."""

    def __init__(self, wrapped: socket.socket | None) -> None:
        self._wrapped = wrapped

    def fileno(self) -> int:
        # picows writes frames to it past the transport, but no HTTP: it never sees a frame.
        return -1 if self._wrapped is None else self._wrapped.fileno()

    def setsockopt(self, *args: object) -> None:
        pass

    def getsockopt(self, *args: object) -> int:
        return 0


class _TransportWithoutTcp:
    """A transport that is not TCP's, as picows sees it."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        value = self.wrapped.get_extra_info(name, default)
        return _SocketWithoutTcp(value) if name == "socket" else value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class Gate(asyncio.Protocol):
    """The protocol of a transport until it is a WebSocket, which then belongs to `connection`.

    picows gets to see the HTTP request or response alone, and makes the other one.  It is a client's
    where `host` and `target` are given.  `arrived` is called with the transport and says whether it may
    come in; `lost` when it is gone before it was upgraded.  No more than `budget` bytes are taken until
    the connection lifts that.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        host: str | None = None,
        target: str | None = None,
        arrived: Callable[[Any], bool] | None = None,
        lost: Callable[[Exception | None], None] | None = None,
        budget: int = STRANGER_BYTES,
    ) -> None:
        self._connection = connection
        self._arrived = arrived
        self._lost = lost
        self._budget = budget
        self._head = bytearray()
        self._is_upgraded = False
        self._ws: Any = WSProtocol(
            host,
            target,
            host is not None,  # is_client_side
            _answer,
            _PICOWS_LOG,
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout: an Admission bounds upgrade and handshake together
            False,  # enable_auto_ping
            10,
            10,
            1,
            False,  # enable_auto_pong
            UPGRADE_BYTES,  # max_frame_size: it never sees a frame
            None,  # extra_headers
            2048,  # read_buffer_init_size
        )
        self.transport: Any = None
        self._is_turned_away = False
        self._is_client = host is not None
        self.saw_tls: bool = False
        """The other end speaks TLS, on a connection without it."""

    async def wait_upgraded(self) -> None:
        """Wait for the end of the upgrade.  Raises what picows makes of a response that is none."""
        if not self._is_upgraded:
            await self._ws.wait_until_handshake_complete()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if self._arrived is not None and not self._arrived(transport):
            # Not at once: after this call aiofastnet begins to watch the socket, closed or not, and
            # libuv ends the process over one that is closed while it is watched.
            asyncio.get_running_loop().call_soon(transport.abort)
            self._is_turned_away = True
        family = getattr(sock, "family", None)
        is_tcp = family in (socket.AF_INET, socket.AF_INET6)
        self._ws.connection_made(transport if is_tcp else _TransportWithoutTcp(transport))

    def data_received(self, data: bytes) -> None:
        if self._is_turned_away:
            return
        if not self._head and data[:2] in TLS_RECORDS:
            self.saw_tls = True
            if not self._is_client:
                # Not left waiting for the end of a request: a TLS client takes that for what it is.
                self._is_turned_away = True
                self.transport.write(NO_TLS_HERE)
                self.transport.close()
                return
        searched = max(len(self._head) - len(HEADERS_END) + 1, 0)
        self._head += data
        end = self._head.find(HEADERS_END, searched)
        if end >= 0:
            end += len(HEADERS_END)
        elif len(self._head) >= UPGRADE_BYTES:
            end = len(self._head)
        else:
            return
        head, rest = self._head[:end], bytes(self._head[end:])
        self._head = bytearray()
        while head and not self.transport.is_closing():
            room = self._ws.get_buffer(-1)
            size = min(len(room), len(head))
            room[:size] = head[:size]
            del head[:size]
            self._ws.buffer_updated(size)
        upgrade = self._ws.listener
        if upgrade is not None and upgrade.is_done:
            connection = self._connection
            self._is_upgraded = True
            self._arrived = self._lost = None
            del self._ws, self._connection
            connection.upgraded(self.transport, rest, self._budget)

    def eof_received(self) -> bool:
        return bool(self._ws.eof_received())

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        # They refer to who refers to this one.
        lost, self._arrived, self._lost = self._lost, None, None
        try:
            self._ws.connection_lost(exc)
        finally:
            if lost is not None:
                lost(exc)


class Admission:
    """One connection's way to becoming a unit's, and its owner afterwards.

    `result` is a future of the unit that the connection belongs to in the end.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        dialer: Dialer | None = None,
        listener: Listener | None = None,
        host: str | None = None,
    ) -> None:
        self._peer = peer
        self._handshake: Handshake | None = None
        self._certificate: bytes | None = None
        self._roles_version = 0
        self.dialer = dialer
        self.listener = listener
        self.host: str = host or ""  # of the remote end; empty for a Unix socket
        # False while a dialler's TCP connection, and TLS where it is spoken, is not there.
        self.found_somebody: bool = False
        self.unit: Unit | None = None
        self.link: Link = Link(peer, self, is_client=dialer is not None)
        self.gate: Gate = Gate(
            self.link,
            host=dialer.address.host_header if dialer is not None else None,
            target=dialer.address.target if dialer is not None else None,
            arrived=self._arrived,
            lost=self._lost_early,
        )
        self.result: asyncio.Future[Unit] = peer.loop.create_future()
        limit = peer.handshake_timeout
        self._timer = None if limit is None else self._end_in(limit, due=clock() + limit)
        peer._lobby.enter(self, stranger=dialer is None)
        if host is not None:
            peer._lobby.let_in(self, host)
        # What strangers fail at is logged where it happens: nobody may be waiting for the result.
        self.result.add_done_callback(_retrieve)

    # -- the gate's and the link's calls, in the order they come

    def _arrived(self, transport: Any) -> bool:
        """A transport is there; False when it is one too many, or too late."""
        if self.result.done():
            return False
        peername = transport.get_extra_info("peername")
        if (
            self.dialer is not None
            and isinstance(peername, tuple)
            and peername == transport.get_extra_info("sockname")
        ):
            self._connected_to_itself(transport)
            return False
        self.found_somebody = True
        self.host = peername[0] if isinstance(peername, tuple) else ""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            if self.dialer is not None:
                self._certificate = tls.getpeercert(True)
            elif self.listener is not None:
                self._certificate = self.listener.certificate
        if self.dialer is not None:
            return True
        refusal = hint = ""
        if self._peer.closing:
            refusal = "this peer is closing"
        elif not _leaves_descriptors(transport):
            refusal, hint = "too few file descriptors are left", "raise the limit: ulimit -n"
        elif not self._peer._lobby.let_in(self, self.host):
            refusal, hint = "too many connections, or too fast", "docs/limits.md has the limits"
        if refusal:
            self.fail(ConnectError(self.about(refusal), hint=hint))
        return not refusal

    def _connected_to_itself(self, transport: Any) -> None:
        """TCP lets a socket connect to itself when the port that nobody listens on becomes its own.

        It is reset, for it would keep the port from whoever is about to listen there.
        """
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.fail(ConnectError(self.about("nobody listens there"), hint="is the peer started?"))

    def opened(self, link: Link) -> None:
        if self.result.done():
            self.abort()
            return
        self._handshake = Handshake(
            keys=self._peer._keys,
            dialer=self.dialer is not None,
            peer_id=self._peer.id,
            make_peer_data=self._peer_data,
            challenges=CHALLENGES,
            tls=self._certificate,
            require_rt2=self._require_rt2,
            features=(STREAMS,),
        )
        try:
            messages = self._handshake.start()
        except HandshakeError as exc:
            self._refused(link, exc)
            return
        for message in messages:
            link.send_message(message)

    def _peer_data(self) -> dict[str, Any]:
        self._roles_version = self._peer._announcer.counter
        return self._peer._describe()

    def _require_rt2(self, unit_id: str | None) -> bool:
        if unit_id is not None:
            return ("unit", unit_id) in SPOKE_RT2
        return self.dialer is not None and ("place", self.dialer.address.place) in SPOKE_RT2

    def handshake(self, link: Link, message: bytes) -> None:
        if self.result.done():
            return
        assert self._handshake is not None
        try:
            answers = self._handshake.receive(message)
        except HandshakeError as exc:
            self._refused(link, exc)
            return
        for answer in answers:
            link.send_message(answer)
        if self._handshake.done:
            self._admit(link)

    def _refused(self, link: Link, exc: HandshakeError) -> None:
        if exc.send is not None:
            link.send_message(exc.send)
        error: RoletalkError
        if exc.close_code in (CloseCode.AUTH_REJECTED, CloseCode.NORMAL):
            error = AuthError(self.about(exc.text), hint=exc.hint)
        else:
            error = ProtocolError(self.about(exc.text), exc.close_code, hint=exc.hint)
        self.fail(error, itself=isinstance(exc, ReachedItselfError))
        link.close(exc.close_code, exc.text[:100])

    @property
    def whom(self) -> str:
        """The remote end by its address, before it has another name."""
        return self.dialer.address.url if self.dialer else self.host or "a Unix socket"

    def about(self, text: str) -> str:
        return f"handshake with {self.whom}: {text}"

    def _admit(self, link: Link) -> None:
        assert self._handshake is not None
        result = self._handshake.result
        self._finish_entering()
        unit = self._peer._units.take_in(self, result)
        if unit is None:
            return
        if result.rt2:
            SPOKE_RT2.add(("unit", result.peer.id))
            if self.dialer is not None:
                SPOKE_RT2.add(("place", self.dialer.address.place))
        self.unit = unit
        self.result.set_result(unit)
        self._peer._units.welcome(
            self,
            unit,
            roles_changed=result.roles_withheld
            or self._roles_version != self._peer._announcer.counter,
        )

    def roles(self, link: Link, text: bytes) -> None:
        assert self.unit is not None
        self._peer._units.roles_received(self.unit, text)

    def acquaint(self, link: Link, text: bytes) -> None:
        assert self.unit is not None
        self._peer._acquaintances.received(self.unit, text)

    def writable(self, link: Link) -> None:
        self._peer._room.is_there(link)

    def lost(self, link: Link) -> None:
        """The link is closed, before or after it became a unit's."""
        self._peer._lobby.leave(self)
        if not self.result.done():
            reason = f" ({printable(link.close_reason)})" if link.close_reason else ""
            error: RoletalkError
            if link.close_code == CloseCode.AUTH_REJECTED:
                hint = self._handshake.hint() if self._handshake is not None else ""
                error = AuthError(self.about(f"refused by the remote peer{reason}"), hint=hint)
            elif link.close_code == CloseCode.WRONG_VERSION:
                error = ProtocolError(self.about("the protocol versions differ"), link.close_code)
            else:
                error = ConnectError(
                    self.about(f"closed by the remote peer with {link.close_code}{reason}"),
                    hint="is that a roletalk peer? If so its log says why",
                )
            self.fail(error)
        if self.unit is not None:
            self._peer._units.link_lost(self, self.unit)
        # Both refer back to this one.
        link.owner = self._handshake = None

    def _lost_early(self, exc: Exception | None) -> None:
        """The transport is gone, and was no WebSocket yet."""
        self._peer._lobby.leave(self)
        if self.dialer is not None and self.link.state == ConnectionState.CONNECTING:
            # The upgrade failed, and the dialer is about to learn why.
            return
        if not self.result.done():
            if self.gate.saw_tls:
                self.fail(
                    ConnectError(
                        self.about("it speaks TLS, and this listener does not"),
                        hint="dial ws:// in place of wss://, or listen(ssl=...)",
                    )
                )
                return
            what = f": {exc}" if exc else ""
            self.fail(ConnectError(self.about(f"the connection was lost{what}")))

    # -- endings

    def fail(self, error: RoletalkError, *, itself: bool = False) -> None:
        self._finish_entering(lingers=self.gate.transport is not None)
        if not self.result.done():
            self.result.set_exception(error)
            self._peer._admission_failed(self, error)
            if itself and self.dialer is not None:
                self.dialer.stop(error)

    def _end_in(self, seconds: float, *, due: float) -> asyncio.TimerHandle:
        return self._peer.loop.call_later(seconds, self._out_of_time, seconds, due)

    def _out_of_time(self, limit: float, due: float) -> None:
        late = clock() - due
        if late > STOOD_STILL:
            # The remote may have stood still with us: it gets that time on top, once.
            self._timer = self._end_in(min(late, limit), due=float("inf"))
            return
        self.fail(
            ConnectError(
                self.about(f"not done after {self._peer.handshake_timeout:g} s"),
                hint=self._why_so_late(),
            )
        )
        # A stranger that stalls will not take part in a closing handshake either.
        self.link.close(CloseCode.AUTH_REJECTED, "handshake timeout")
        self.abort()

    def _why_so_late(self) -> str:
        if self.gate.transport is None and self.listener is not None:
            return (
                "no TLS handshake came to its end: it dials ws:// in place of wss://, or does not"
                " trust this listener's certificate"
            )
        if self.gate.transport is None:
            return "nothing answers there: a wrong address, or a firewall"
        if self.link.state == ConnectionState.CONNECTING:
            tls = ", or one that speaks TLS (wss://)" if self.dialer is not None else ""
            return f"it is connected, but says nothing: is it a roletalk peer{tls}?"
        return "it went silent in the handshake; Peer(handshake_timeout=...) allows more"

    def too_much(self) -> None:
        text = "too many bytes before the end of the handshake"
        self.fail(ProtocolError(self.about(text), CloseCode.TOO_BIG))
        if self.link.is_open:
            self.gate.transport.pause_reading()
            self.link.close(CloseCode.TOO_BIG, text)
        else:
            self.abort()

    def give_up(self) -> None:
        """Drop the connection, unless it ends by its closing handshake already."""
        if self.link.state in (ConnectionState.CONNECTING, ConnectionState.OPEN):
            self.abort()

    def abort(self) -> None:
        if self.link.state != ConnectionState.CONNECTING:
            self.link.abort()
        elif self.gate.transport is not None:
            self.gate.transport.abort()

    def _finish_entering(self, *, lingers: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._peer._lobby.leave(self, lingers=lingers)
        if self._handshake is not None:
            self._handshake.close()


def _leaves_descriptors(transport: Any) -> bool:
    sock = transport.get_extra_info("socket")
    return sock is None or leaves_descriptors(sock.fileno())


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
