"""Dialling an address, and dialling it again when its connection is lost."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl as ssl_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ._frame import ConnectionState
from ._text import printable
from ._wire import CloseCode
from .backoff import BackOff
from .errors import AuthError, ConnectError, ProtocolError, RoletalkError
from .gate import Admission

if TYPE_CHECKING:
    from ._session import Link
    from .address import Address
    from .peer import Peer
    from .unit import Unit


UNREACHABLE: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)
NO_TLS_REASONS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


class Dialer:
    """Keeps one address connected, from the first attempt until `stop`.

    ::

        DIALLING ──▶ CONNECTED ──lost──▶ WAITING ──▶ DIALLING ...
            │ first attempt failed, and no `retry`
            └──▶ stopped
    """

    def __init__(
        self,
        peer: Peer,
        address: Address,
        *,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        reconnect: bool = True,
        retry: bool = False,
    ) -> None:
        self._peer = peer
        self._ssl = ssl
        self._server_hostname = server_hostname
        self._reconnect = reconnect
        self._retry = retry
        self._stopped = False
        self._lost = asyncio.Event()
        self._back_off = BackOff()
        self._found_nobody = False
        self._told = ""
        self.address = address
        self.unit: Unit | None = None
        self._link: Link | None = None
        self.first: asyncio.Future[Unit] = peer.loop.create_future()
        self.first.add_done_callback(lambda done: done.cancelled() or done.exception())
        peer._dialers.add(self)
        self._task = peer.loop.create_task(
            self._run(), name=f"roletalk dialer {printable(address.url)}"
        )

    def stop(self, error: RoletalkError | None = None) -> None:
        """Dial no more; a connection that is open stays.

        Whoever waits for the first connection gets `error`, or else that it was given up.
        """
        if self._stopped:
            return
        self._stopped = True
        self._peer._dialers.discard(self)
        if self.unit is not None:
            self.unit._dialers.discard(self)
        if not self.first.done():
            self.first.set_exception(
                error or ConnectError(f"dialling {self.address.url} was given up")
            )
        self._task.cancel()

    @property
    def failure(self) -> str:
        """What the last dial failed with; empty while connected, or before anything was tried."""
        return self._told

    @property
    def alive(self) -> bool:
        """Whether it keeps its address connected."""
        return not self._stopped

    def give_up(self) -> None:
        """Dial no more, and close the connection if there is one: nobody wants it."""
        self.stop()
        if self._link is not None:
            self._link.close(CloseCode.MANUAL, "closed on purpose")

    def lost(self) -> None:
        """The connection that this dialer made is gone."""
        self._lost.set()

    async def wait_stopped(self, timeout: float | None) -> None:
        """Wait until the task of a stopped dialer is over, at most `timeout` seconds."""
        await asyncio.wait({self._task}, timeout=timeout)

    async def _run(self) -> None:
        while not self._stopped:
            try:
                self._lost.clear()
                unit = await self._attempt()
            except RoletalkError as error:
                if not self.first.done() and not self._retry:
                    self.first.set_exception(error)
                    break
                self._tell(error)
                if self._found_nobody:
                    delay = self._back_off.found_nobody(len(self._peer._dialers))
                elif isinstance(error, (AuthError, ProtocolError)):
                    delay = self._back_off.refused()
                else:
                    delay = self._back_off.failed()
            except Exception as error:
                # Nothing that is known to happen: the dialer must not die of it in silence.
                self._log(logging.ERROR, "unexpected error while dialling %s: %s", error)
                if not self.first.done() and not self._retry:
                    self.first.set_exception(error)
                    break
                delay = self._back_off.failed()
            else:
                connected_at = self._peer.loop.time()
                self._told = ""
                # Until here it belonged to the unit that was lost: closing that one stops it too.
                if self.unit is not None:
                    self.unit._dialers.discard(self)
                self.unit = unit
                unit._dialers.add(self)
                if not self.first.done():
                    self.first.set_result(unit)
                await self._lost.wait()
                if not self._reconnect:
                    break
                delay = self._back_off.lost(self._peer.loop.time() - connected_at)
            await asyncio.sleep(delay)
        self._stopped = True
        self._peer._dialers.discard(self)
        if self.unit is not None:
            self.unit._dialers.discard(self)

    def _tell(self, error: RoletalkError) -> None:
        """Log why a dial failed; again and again the same is for those who debug."""
        text = str(error)
        level = logging.DEBUG if text == self._told else logging.INFO
        self._log(level, "dialling %s failed: %s", error)
        self._told = text

    def _log(self, level: int, text: str, error: Exception) -> None:
        trace = None if isinstance(error, RoletalkError) else error
        url = self.address.url
        self._peer.remote_log.log(level, url, text, url, error, error=trace)

    async def _attempt(self) -> Unit:
        """Connect, upgrade, shake hands; all of it within the peer's handshake timeout."""
        admission = Admission(self._peer, dialer=self)
        self._found_nobody = False
        opening = asyncio.ensure_future(self._open(admission))
        try:
            either: set[asyncio.Future[Any]] = {opening, admission.result}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if opening.done() and opening.exception() is not None:
                admission.fail(
                    self._connect_error(opening.exception(), saw_tls=admission.gate.saw_tls)
                )
            elif opening.done() and admission.link.state == ConnectionState.CONNECTING:
                # picows takes a connection that is lost before the upgrade for one that is done.
                admission.fail(
                    self._connect_error(
                        EOFError("the connection was closed"), saw_tls=admission.gate.saw_tls
                    )
                )
            unit = await admission.result
            self._link = admission.link
            return unit
        except BaseException as error:
            self._found_nobody = not admission.found_somebody and _is_unreachable(
                error.__cause__, self.address.secure
            )
            admission.fail(ConnectError(f"dialling {self.address.url} was given up"))
            admission.give_up()
            raise
        finally:
            # Not awaited: a cancellation of ours that came meanwhile must not be taken for its own.
            opening.cancel()
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _open(self, admission: Admission) -> None:
        ssl = self._ssl
        if ssl is None and self.address.secure:
            ssl = ssl_module.create_default_context()
        await self._peer._network.connect(
            self.address, admission.gate, ssl=ssl, server_hostname=self._server_hostname
        )
        await admission.gate.wait_upgraded()

    def _connect_error(self, cause: BaseException | None, *, saw_tls: bool) -> RoletalkError:
        url = self.address.url
        if saw_tls:
            return ConnectError(
                f"no WebSocket at {url}: TLS is spoken there", hint="use wss:// in place of ws://"
            )
        if isinstance(cause, ssl_module.SSLError):
            error: RoletalkError = ConnectError(
                f"no TLS with {url}: {cause}", hint=_tls_hint(cause)
            )
        elif isinstance(cause, OSError):
            why = str(cause) or type(cause).__name__
            error = ConnectError(f"cannot connect to {url}: {why}", hint=self._hint(cause))
        else:
            # Not with its cause: what was answered stands in that unescaped.
            return ConnectError(
                f"no WebSocket at {url}: {printable(str(cause))}",
                hint="does its listener want a client certificate? Is it a roletalk peer?"
                if self.address.secure
                else "is it a roletalk peer? One that speaks TLS needs wss://",
            )
        error.__cause__ = cause
        return error

    def _hint(self, cause: OSError) -> str:
        said = []
        if isinstance(cause, socket.gaierror):
            said.append("the name of the host is not known here")
        elif self.address.path is not None:
            said.append("is a peer listening on that path, and may this user use it?")
        elif _is_refused(cause):
            said.append("nobody listens there: is the peer started, and the address right?")
        elif isinstance(cause, TimeoutError) or cause.errno in UNREACHABLE:
            said.append("nothing answers there: is the address right, or a firewall in between?")
        elif self.address.secure and isinstance(cause, ConnectionError):
            said.append(
                "does its listener want a client certificate, or another version of TLS? A peer without"
                " TLS needs ws://"
            )
        if self.address.path is None and urlsplit(self.address.url).port is None:
            said.append(f"port {self.address.port}, as the URL names none")
        return "; ".join(said)


def _is_refused(cause: OSError) -> bool:
    # Where a name has several addresses, what asyncio raises has the errors of all in its text alone.
    return isinstance(cause, ConnectionRefusedError) or (
        cause.errno is None and f"[Errno {errno.ECONNREFUSED}]" in str(cause)
    )


def _tls_hint(error: ssl_module.SSLError) -> str:
    """What to do about a failed TLS handshake, by OpenSSL's words for it: there is no more than these."""
    text = str(error)
    if "expired" in text or "not yet valid" in text:
        return "renew its certificate, or set the clock here"
    if "mismatch" in text:
        return (
            "its certificate is for another name: dial by a name that is in it, or"
            " connect(server_hostname=...)"
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not trusted here:"
            " connect(ssl=ssl.create_default_context(cafile=...))"
        )
    if any(reason in text for reason in NO_TLS_REASONS):
        return "no TLS is spoken there: use ws://, or listen(ssl=...) there"
    return "does its listener want a client certificate, or another version of TLS?"


def _is_unreachable(cause: BaseException | None, secure: bool) -> bool:
    """Whether dialling that ended with `cause`, before its transport was there, reached no program."""
    if isinstance(cause, socket.gaierror):
        return False
    if not secure:
        return True
    # Who is reached may also fail in the TLS handshake.
    if isinstance(cause, ConnectionError):
        return isinstance(cause, ConnectionRefusedError)
    return isinstance(cause, OSError) and not isinstance(cause, ssl_module.SSLError)
