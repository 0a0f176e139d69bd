"""What the extension modules were compiled against.

It cimports nothing, so it can be imported before anything is known to fit.
"""

cdef extern from *:
    const char* ROLETALK_BUILT_AIOFASTNET
    const char* ROLETALK_BUILT_PICOWS

AIOFASTNET = ROLETALK_BUILT_AIOFASTNET.decode("ascii")
PICOWS = ROLETALK_BUILT_PICOWS.decode("ascii")
