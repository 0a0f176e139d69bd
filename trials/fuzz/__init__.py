"""Fuzzing: every parser and the handshake, fed what a fuzzer makes of recordings and of its own finds.

`python -m trials.fuzz` runs all targets; `trials.fuzz.one` is one of them, in a process of its own.
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TARGETS: Final = ROOT / "trials" / "fuzz" / "targets"
CORPUS: Final = ROOT / "tests" / "corpus"
INSTRUMENTED: Final = ROOT / "build" / "fuzz" / "lib"
