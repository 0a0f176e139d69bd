"""Local roles: what this peer serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._context import Context, RequestContext
from ._dispatch import RoleCore, encode_name
from ._opening import ReadableContext, WritableContext
from .callbacks import Callbacks
from .middleware import Kind, Middleware, MiddlewareFunction, wrap
from .signatures import HANDLER, check

if TYPE_CHECKING:
    from .peer import Peer

F = TypeVar("F", bound=Callable[..., Any])
MessageHandler = TypeVar("MessageHandler", bound=Callable[[Context], Any])
RequestHandler = TypeVar("RequestHandler", bound=Callable[[RequestContext], Any])
ReadableHandler = TypeVar("ReadableHandler", bound=Callable[[ReadableContext], Any])
WritableHandler = TypeVar("WritableHandler", bound=Callable[[WritableContext], Any])
M = TypeVar("M", bound=MiddlewareFunction)


class Role(RoleCore):
    """A service of this peer, made by `Peer.role`.

    Every connected unit learns at once when it is enabled or disabled (docs/protocol.md, section 5).
    """

    peer: Peer

    def __init__(self, peer: Peer, name: str, *, active: bool = True) -> None:
        super().__init__(peer.table, name, active=active)
        self.peer = peer
        self._middlewares: list[Middleware] = []
        self._status_callbacks: Callbacks[Role] = Callbacks(peer, "Role.on_status_change", "role")

    @property
    def active(self) -> bool:
        """Whether the role is announced and its handlers are called."""
        return self.is_active

    def enable(self) -> None:
        """Announce the role; does nothing when it is active."""
        self._set_active(True)

    def disable(self) -> None:
        """Withdraw the role: requests to it are rejected, messages dropped and counted."""
        self._set_active(False)

    def _set_active(self, active: bool) -> None:
        self.peer.check_thread()
        if self.is_active == active:
            return
        self.is_active = active
        self.peer._announcer.changed()
        self._status_callbacks(self)

    @overload
    def on_message(
        self, event: str | None = None
    ) -> Callable[[MessageHandler], MessageHandler]: ...

    @overload
    def on_message(self, event: MessageHandler) -> MessageHandler: ...

    def on_message(self, event: Any = None) -> Any:
        """Decorate the handler of one-way messages of `event`; with no event, of every event that has
        no handler of its own.  A second handler of an event replaces the first.

        It is called with a `Context`; what it returns is ignored.  Sync or async.
        """
        return self._decorator("message", event)

    @overload
    def on_request(
        self, event: str | None = None
    ) -> Callable[[RequestHandler], RequestHandler]: ...

    @overload
    def on_request(self, event: RequestHandler) -> RequestHandler: ...

    def on_request(self, event: Any = None) -> Any:
        """Decorate the handler of requests of `event`; with no event, of every event that has no handler
        of its own.  A second handler of an event replaces the first.

        It is called with a `RequestContext`; what it returns is the reply.  ``raise Reject(text)``
        rejects with that text; any other exception is logged and rejected as ``internal error``.
        Sync or async: a sync one must not block.
        """
        return self._decorator("request", event)

    @overload
    def on_readable(
        self, event: str | None = None
    ) -> Callable[[ReadableHandler], ReadableHandler]: ...

    @overload
    def on_readable(self, event: ReadableHandler) -> ReadableHandler: ...

    def on_readable(self, event: Any = None) -> Any:
        """Decorate the handler of streams of `event` that this end reads; with no event, of every event
        that has no handler of its own.  A second handler of an event replaces the first.

        It is called with a `ReadableContext`, and either accepts the stream or rejects it:
        ``async with ctx.accept() as stream``.  The stream ends with the handler.  A handler whose
        stream dies is cancelled, unless it waits for the stream: that raises `StreamError`.
        """
        return self._decorator("readable", event)

    @overload
    def on_writable(
        self, event: str | None = None
    ) -> Callable[[WritableHandler], WritableHandler]: ...

    @overload
    def on_writable(self, event: WritableHandler) -> WritableHandler: ...

    def on_writable(self, event: Any = None) -> Any:
        """Decorate the handler of streams of `event` that this end writes, called with a
        `WritableContext`.  See `on_readable`.
        """
        return self._decorator("writable", event)

    def _decorator(self, kind: Kind, event: Any) -> Any:
        self.peer.check_thread()
        # Both @role.on_request and @role.on_request() stand for every other event.
        if callable(event):
            return self._handle(kind, None, event)
        if event is not None:
            encode_name(event, "event")

        def decorate(function: F) -> F:
            return self._handle(kind, event, function)

        return decorate

    def _handle(self, kind: Kind, event: str | None, function: F) -> F:
        check(function, f"a handler of {kind}s", HANDLER)
        self.set_handler(kind, event, function)
        self._wrap_handlers()
        return function

    @overload
    def middleware(self, *, kinds: Iterable[Kind] | None = None) -> Callable[[M], M]: ...

    @overload
    def middleware(self, function: M, *, kinds: Iterable[Kind] | None = None) -> M: ...

    def middleware(self, function: M | None = None, *, kinds: Iterable[Kind] | None = None) -> Any:
        """Decorate ``async def m(ctx, call_next)``, called around this role's handlers.

        The peer's middlewares come first, then the role's, in the order they were added.
        ``await call_next()`` gives the reply, which may be replaced by returning something else;
        `ctx.data` may be replaced before.  `kinds` narrows what it is called for.
        """
        self.peer.check_thread()

        def decorate(function: M) -> M:
            self._middlewares.append(Middleware.make(function, kinds))
            self._wrap_handlers()
            return function

        return decorate if function is None else decorate(function)

    def _wrap_handlers(self) -> None:
        for handler in self.handlers:
            chain = (*self.peer._middlewares, *self._middlewares)
            handler.set_target(wrap(handler.function, chain, handler.kind))

    def on_status_change(self, function: F) -> F:
        """Decorate a callback, called with the role whenever it is enabled or disabled."""
        return self._status_callbacks.add(function)

    def __repr__(self) -> str:
        return f"<Role {self.name!r} {'active' if self.active else 'inactive'}>"
