from libc.stdint cimport uint8_t, uint16_t


cdef class Handler:
    """One handler of one role: where an incoming message ends."""

    cdef:
        readonly RoleCore role
        readonly str event             # None: every event that has no handler of its own
        readonly str kind
        readonly object function       # what the user gave
        object target                  # what is called: `function`, or the middleware around it
        bytes key


cdef class RoleCore:
    """A local role: whether it is active, and its handlers by kind and event."""

    cdef:
        readonly str name
        bytes wire_name
        bint _active
        HandlerTable table
        dict _handlers                 # (kind, event or None) -> Handler


cdef class HandlerTable:
    """All handlers of a peer, found by the bytes that stand on the wire."""

    cdef:
        dict by_key                    # key -> Handler
        dict roles                     # a role's name in UTF-8 -> RoleCore
        list cache                     # direct-mapped, by a hash of the key; Handler or None

    # `names`: role || event, borrowed.  None: nobody handles it, and why() says why.
    cdef Handler find(self, uint8_t kind, const uint8_t* names, uint16_t role_size, uint16_t event_size)
    cdef Handler _find_slowly(self, uint8_t kind, const uint8_t* names, uint16_t role_size,
                              uint16_t event_size, Py_ssize_t slot)
    cdef str why(self, const uint8_t* names, uint16_t role_size)


cdef str event_text(const uint8_t* names, uint16_t role_size, uint16_t event_size)
