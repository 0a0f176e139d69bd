"""For tests of programs that use roletalk: peers without sockets, faults, and time that is not waited for."""

from ._clock import VirtualTimeLoop, run_in_virtual_time
from ._mesh import Mesh

__all__ = ["Mesh", "VirtualTimeLoop", "run_in_virtual_time"]
