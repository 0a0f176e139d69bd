# cython: language_level=3
"""The reference: what picows gives with Cython listeners and nothing of ours.

No roles, no correlations, no callers: frames are echoed, each written at once by `transport.send`.
"""

from libc.stdint cimport int64_t

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

cdef extern from *:
    """
    #include <time.h>
    static int64_t bench_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    """
    int64_t bench_now() noexcept


cdef class Echo(WSListener):
    """Server side: sends every frame back."""

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.BINARY:
            transport.send(WSMsgType.BINARY, frame.get_payload_as_bytes())


cdef class Counter(WSListener):
    """Server side: counts binary frames; a text frame asks for the number, and sets it back."""

    cdef int64_t frames

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.BINARY:
            self.frames += 1
        elif frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, str(self.frames).encode())
            self.frames = 0


cdef class Subscriber(WSListener):
    """Server side: one of an audience, as long as it is connected."""

    cdef:
        WSTransport transport
        list audience
        bint paused

    def __init__(self, list audience):
        self.audience = audience

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport
        self.audience.append(self)

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.audience.remove(self)

    cpdef pause_writing(self):
        self.paused = True

    cpdef resume_writing(self):
        self.paused = False


def tell(list audience, bytes payload):
    """Send to all of `audience` that have room.  Returns how many those were."""
    cdef:
        Subscriber subscriber
        int64_t told = 0
    for subscriber in audience:
        if not subscriber.paused:
            subscriber.transport.send(WSMsgType.BINARY, payload)
            told += 1
    return told


cdef class Tally:
    """What came to many listeners together."""

    cdef public int64_t frames


cdef class Subscribed(WSListener):
    """Client side of a `Subscriber`."""

    cdef Tally tally

    def __init__(self, Tally tally):
        self.tally = tally

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.BINARY:
            self.tally.frames += 1


cdef class EchoClient(WSListener):
    """Keeps a number of frames in flight: each echo sends the next."""

    cdef:
        WSTransport transport
        bytes payload
        bint running, timed
        int in_flight
        int64_t sent_at
        object finished                # called when nothing is in flight any more
        readonly int64_t echoes
        readonly list latencies        # ns each, when timed
        readonly bytes last            # the payload of the last echo

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport

    def start(self, bytes payload, int in_flight, bint timed, finished):
        self.payload = payload
        self.running = True
        self.timed = timed
        self.in_flight = in_flight
        self.finished = finished
        self.echoes = 0
        self.latencies = []
        self.sent_at = bench_now()
        for _ in range(in_flight):
            self.transport.send(WSMsgType.BINARY, payload)

    def stop(self):
        self.running = False

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type != WSMsgType.BINARY:
            return
        self.echoes += 1
        if self.timed:
            self.latencies.append(bench_now() - self.sent_at)
            self.sent_at = bench_now()
        if self.running:
            transport.send(WSMsgType.BINARY, self.payload)
            return
        self.in_flight -= 1
        if self.in_flight == 0:
            self.last = frame.get_payload_as_bytes()
            self.finished()


cdef class CounterClient(WSListener):
    """Sends as fast as the transport takes it."""

    cdef:
        WSTransport transport
        bint paused
        object resumed, counted

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport

    def send_until(self, bytes payload, int64_t until, resumed):
        """Send until the transport pauses (`resumed` is called later) or the clock says `until`, ns.

        Returns how many frames were sent.
        """
        cdef int64_t sent = 0
        self.resumed = resumed
        while not self.paused and (sent & 63 or bench_now() < until):
            self.transport.send(WSMsgType.BINARY, payload)
            sent += 1
        return sent

    @property
    def is_paused(self):
        return self.paused

    def ask_count(self, counted):
        """`counted` is called with the number of frames that came since it was last asked for."""
        self.counted = counted
        self.transport.send(WSMsgType.TEXT, b"?")

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.TEXT:
            self.counted(int(frame.get_payload_as_ascii_text()))

    cpdef pause_writing(self):
        self.paused = True

    cpdef resume_writing(self):
        self.paused = False
        if self.resumed is not None:
            self.resumed()
