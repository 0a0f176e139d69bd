from typing import Any, Literal, overload

from typing_extensions import TypeForm, TypeVar, disjoint_base

from ._wire import DataType
from .middleware import Kind
from .unit import Unit

_T = TypeVar("_T")
_F = TypeVar("_F", default=Any)

@disjoint_base
class Responder:
    """Who a context came from and who takes its answer: the base of a unit."""

@disjoint_base
class Context:
    """A message that came in: to a handler, or as the reply to a request.

    `role` and `event` are what it was sent to, `unit` is who sent it, and `kind` is ``"message"``,
    ``"request"``, ``"readable"``, ``"writable"`` or ``"reply"``.  `data` is decoded when it is first read;
    `raw` is the payload as it came.
    """

    @property
    def data(self) -> Any:
        """The payload's value. Raises `BadPayload` when it does not decode (docs/protocol.md, section 2).

        May be set, for what is called later (a middleware may replace it).
        """
    @data.setter
    def data(self, value: object) -> None: ...
    @property
    def unit(self) -> Unit: ...
    @property
    def raw(self) -> bytes: ...
    @property
    def role(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def kind(self) -> Kind | Literal["reply"]: ...
    @property
    def rtt(self) -> float | None:
        """Seconds from writing the request to reading this reply; ``None`` but on replies."""
    @property
    def datatype(self) -> DataType | int:
        """The wire's data type, or the bare ``int`` where the wire knows no such type."""
    # The second is for unions and the like; a type checker that does not know PEP 747 makes Any of it.
    @overload
    def decode(self, type: type[_T]) -> _T:
        """The payload as `type`, checked and converted by msgspec.

        Objects are parsed straight into `type`; other payloads are converted.  Raises `BadPayload`
        when the payload is not a `type`.
        """
    @overload
    def decode(self, type: TypeForm[_F]) -> _F:
        """The payload as `type`, checked and converted by msgspec.

        Objects are parsed straight into `type`; other payloads are converted.  Raises `BadPayload`
        when the payload is not a `type`.
        """

@disjoint_base
class RequestContext(Context):
    """A request, as its handler gets it."""

    @property
    def answered(self) -> bool:
        """Whether it was replied to, rejected or accepted."""
    def reply(self, data: object = None) -> None:
        """Answer now; what the handler returns later is ignored.

        Raises `RuntimeError` when it is answered already, `TypeError` and `ValueError` when `data`
        cannot be encoded (it is not answered then).
        """
    def reject(self, text: str = "rejected") -> None:
        """Refuse with `text` (an empty one becomes ``"rejected"``).

        Raises `RuntimeError` when it is answered already.
        """
