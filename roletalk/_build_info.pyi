from typing import Final

PICOWS: Final[str]
