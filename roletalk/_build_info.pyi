from typing import Final

AIOFASTNET: Final[str]
PICOWS: Final[str]
