"""Which handler an incoming message is for, found by the raw bytes of its role and event.

A key is ``kind (1 byte) || role size (2 bytes) || role || event``.  The hot path hashes those bytes
where they lie and compares them with the key of one cached handler; no object is made to look one up.
Names that no handler has never enter the cache or any table: a remote peer cannot make them grow.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

from ._text import quoted

from ._wire cimport (MAX_NAME_BYTES, MSG_MESSAGE, MSG_OPEN_READABLE, MSG_OPEN_WRITABLE,
                     MSG_REQUEST)

cdef enum:
    CACHE_SLOTS = 256                  # a power of two

# A stream's kind is named from the handler's side: who asks to read is answered by a writer.
_KIND_BYTES = {
    "message": MSG_MESSAGE,
    "request": MSG_REQUEST,
    "writable": MSG_OPEN_READABLE,
    "readable": MSG_OPEN_WRITABLE,
}
_KIND_NAMES = {number: name for name, number in _KIND_BYTES.items()}


cdef class Handler:
    def __init__(self, RoleCore role, str kind, event, function):
        self.role = role
        self.kind = kind
        # An exact str, whatever subclass of it names the event.
        self.event = None if event is None else str.__str__(event)
        self.function = function
        self.target = function
        self.key = b""
        if event is not None:
            self.key = _key(_KIND_BYTES[kind], role.wire_name, encode_name(event, "event"))

    def set_target(self, target):
        """What is called with the context in place of the function itself."""
        self.target = target


cdef class RoleCore:
    def __init__(self, HandlerTable table, name, *, bint active=True):
        self.wire_name = encode_name(name, "role")
        self.name = str.__str__(name)
        self.table = table
        self._active = active
        self._handlers = {}
        table.roles[self.wire_name] = self

    @property
    def is_active(self):
        return self._active

    @is_active.setter
    def is_active(self, bint active):
        self._active = active

    @property
    def handlers(self):
        return tuple(self._handlers.values())

    def set_handler(self, str kind, event, function):
        """Handle `event` (every other event, when None) of `kind` with `function`; replaces what did."""
        cdef Handler handler = Handler(self, kind, event, function)
        self._handlers[kind, event] = handler
        if event is not None:
            self.table.by_key[handler.key] = handler
        self.table.cache = [None] * CACHE_SLOTS
        return handler


cdef class HandlerTable:
    def __init__(self):
        self.by_key = {}
        self.roles = {}
        self.cache = [None] * CACHE_SLOTS

    cdef Handler find(self, uint8_t kind, const uint8_t* names, uint16_t role_size, uint16_t event_size):
        # FNV-1a
        cdef:
            uint32_t hashed = (2166136261u ^ kind) * 16777619u
            Py_ssize_t size = <Py_ssize_t>role_size + event_size
            Py_ssize_t slot, i
            const char* key
            Handler handler
        # Longer names share their first bytes' slot: hashing is bounded, comparing is exact.
        for i in range(size if size < 64 else 64):
            hashed = (hashed ^ names[i]) * 16777619u
        slot = <Py_ssize_t>((hashed ^ (hashed >> 15)) & (CACHE_SLOTS - 1))
        entry = <object>PyList_GET_ITEM(self.cache, slot)
        if entry is not None:
            handler = <Handler>entry
            key = PyBytes_AS_STRING(handler.key)
            if (PyBytes_GET_SIZE(handler.key) == size + 3
                    and <uint8_t>key[0] == kind
                    and ((<uint8_t>key[1] << 8) | <uint8_t>key[2]) == role_size
                    and memcmp(key + 3, names, size) == 0):
                return handler
        return self._find_slowly(kind, names, role_size, event_size, slot)

    cdef Handler _find_slowly(self, uint8_t kind, const uint8_t* names, uint16_t role_size,
                              uint16_t event_size, Py_ssize_t slot):
        cdef bytes role = PyBytes_FromStringAndSize(<const char*>names, role_size)
        handler = self.by_key.get(_key(
            kind, role, PyBytes_FromStringAndSize(<const char*>names + role_size, event_size)))
        if handler is not None:
            self.cache[slot] = handler
            return <Handler>handler
        owner = self.roles.get(role)
        if owner is None or event_text(names, role_size, event_size) is None:
            return None
        return (<RoleCore>owner)._handlers.get((_KIND_NAMES[kind], None))

    cdef str why(self, const uint8_t* names, uint16_t role_size):
        """The text of a reject for what find() did not find."""
        role = self.roles.get(PyBytes_FromStringAndSize(<const char*>names, role_size))
        if role is None:
            # The name is the caller's own: it is neither echoed nor kept.
            return "the role is not registered"
        if not (<RoleCore>role)._active:
            return f"the role {quoted(role.name)} is not active"
        return f"the event is not handled by the role {quoted(role.name)}"


cdef str event_text(const uint8_t* names, uint16_t role_size, uint16_t event_size):
    """The event's name; None when it is not UTF-8, and so no name that anything can have."""
    try:
        return PyUnicode_DecodeUTF8(<const char*>names + role_size, event_size, NULL)
    except UnicodeDecodeError:
        return None


cdef bytes _key(uint8_t kind, bytes role, bytes event):
    cdef:
        Py_ssize_t role_size = PyBytes_GET_SIZE(role)
        Py_ssize_t event_size = PyBytes_GET_SIZE(event)
        bytes key = PyBytes_FromStringAndSize(NULL, 3 + role_size + event_size)
        char* at = PyBytes_AS_STRING(key)
    at[0] = <char>kind
    at[1] = <char>(role_size >> 8)
    at[2] = <char>(role_size & 0xFF)
    memcpy(at + 3, PyBytes_AS_STRING(role), role_size)
    memcpy(at + 3 + role_size, PyBytes_AS_STRING(event), event_size)
    return key


def encode_name(name, str what):
    """A role's or an event's name as it stands on the wire (docs/protocol.md, section 3).

    Raises `TypeError` unless it is a ``str``, `ValueError` when its UTF-8 is over 65,535 bytes.
    """
    if not isinstance(name, str):
        raise TypeError(f"the {what} must be a str, not {type(name).__name__}")
    cdef bytes encoded = (<str>name).encode()
    if PyBytes_GET_SIZE(encoded) > MAX_NAME_BYTES:
        raise ValueError(f"the {what}'s name is over {MAX_NAME_BYTES} bytes in UTF-8")
    return encoded
