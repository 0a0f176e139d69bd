"""For tests of programs that use roletalk: peers without sockets, faults, and time that is not waited for."""

from ._mesh import Mesh

__all__ = ["Mesh"]
