from typing import NamedTuple

__all__ = ["ParsedHeader", "apply_mask", "build_header", "parse_frame_header"]

class ParsedHeader(NamedTuple):
    opcode: int
    fin: bool
    mask: bytes | None
    header_size: int
    size: int

def parse_frame_header(data: bytes, *, from_client: bool) -> ParsedHeader | None: ...
def build_header(opcode: int, size: int, mask: bytes | None = None) -> bytes: ...
def apply_mask(data: bytes, mask: bytes) -> bytes: ...
