from ._channels cimport Stream
from ._payload cimport Encoded
from ._peer cimport PeerCore
from ._session cimport Link, UnitCore


cdef class DestinationCore:
    """A role as seen from outside: the units that serve it, and whose turn it is."""

    cdef:
        readonly PeerCore peer
        readonly str name
        bytes _wire_name
        list _units
        Py_ssize_t _next_unit
        dict _names                    # event -> role || event in UTF-8
        object _last_event
        bytes _last_names

    cdef bytes names_of(self, object event)
    cdef Link pick(self, object unit, bint for_stream)
    cdef Link _pick_of(self, object unit, bint for_stream)
    cdef double _deadline(self, object timeout, double at) except? -1
    cdef object _request(self, object event, object data, object timeout, object unit, bint ignore_close)
    cdef object _about(self, object error, object event)
    cdef Link _send(self, object event, object data, object unit)
    cdef int _write(self, Link link, bytes names, Encoded* payload) except -1
    cdef object _open_now(self, Stream stream, int kind, object event, object data, double deadline,
                          object unit)
