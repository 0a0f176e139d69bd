"""What the suite's reports say of us, and why not all of it is OK."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from trials.figures import Figure, at_least, at_most, told

# Of wstest.txt's version of the suite, without those that are left out.
ALL_CASES: Final = 301

_WHOLE_MESSAGES: Final = (
    "UTF-8 is checked when the message is whole, not at its first wrong byte: the frame layer hands out"
    " whole messages, and it is the echo application that checks them; roletalk refuses all text"
)

NON_STRICT: Final[Mapping[str, str]] = {
    "6.4.1": _WHOLE_MESSAGES,
    "6.4.2": _WHOLE_MESSAGES,
    "6.4.3": _WHOLE_MESSAGES,
    "6.4.4": _WHOLE_MESSAGES,
}
"""Why a case is allowed to be passed non-strictly, which still conforms to RFC 6455."""


class Verdict(Enum):
    OK = "OK"
    NON_STRICT = "NON-STRICT"
    INFORMATIONAL = "INFORMATIONAL"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Case:
    """One case: what came of its messages, and of its closing handshake."""

    name: str
    behavior: str
    closing: str
    report: str

    @property
    def verdict(self) -> Verdict:
        """The worse of the two; a word of the suite that is not known here has failed."""
        both = {self.behavior, self.closing}
        if not both <= {
            "OK",
            "NON-STRICT",
            "INFORMATIONAL",
            # Of closing handshakes only: these two it shows as almost passed.
            "WRONG CODE",
            "FAILED BY CLIENT",
        }:
            return Verdict.FAILED
        if not both <= {"OK", "INFORMATIONAL"}:
            return Verdict.NON_STRICT
        return Verdict.INFORMATIONAL if "INFORMATIONAL" in both else Verdict.OK

    @property
    def unexplained(self) -> bool:
        """Whether it was passed non-strictly, and nothing says why that may be."""
        return self.verdict is Verdict.NON_STRICT and self.name not in NON_STRICT


def load_cases(reports: Path, agent: str) -> tuple[Case, ...]:
    """The cases of the index in the folder `reports`, in their order."""
    index = json.loads((reports / "index.json").read_text("utf-8"))[agent]
    return tuple(
        Case(
            name,
            found["behavior"],
            found["behaviorClose"],
            str((reports / found["reportfile"]).with_suffix(".html")),
        )
        for name, found in sorted(index.items(), key=lambda item: _order(item[0]))
    )


def _order(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split(".")))


def figures(side: str, cases: Iterable[Case], *, complete: bool) -> list[Figure]:
    """Rows of the scorecard: how we did as a `side`.  complete: no case was left out by choice."""
    cases = tuple(cases)

    def count(verdict: Verdict) -> int:
        return sum(case.verdict is verdict for case in cases)

    run = f"as a {side}: cases run"
    unexplained = sum(case.unexplained for case in cases)
    return [
        at_least(run, len(cases), ALL_CASES) if complete else told(run, len(cases)),
        told(f"as a {side}: OK", count(Verdict.OK)),
        told(f"as a {side}: NON-STRICT", count(Verdict.NON_STRICT)),
        at_most(f"as a {side}: NON-STRICT for no known reason", unexplained, 0),
        told(f"as a {side}: INFORMATIONAL", count(Verdict.INFORMATIONAL)),
        at_most(f"as a {side}: FAILED", count(Verdict.FAILED), 0),
    ]


def remarks(side: str, cases: Iterable[Case]) -> list[str]:
    """Lines on what was not simply passed: one for each case that fails the trial, one for each reason."""
    lines = []
    excused: dict[str, list[str]] = {}
    for case in cases:
        if case.verdict is Verdict.FAILED or case.unexplained:
            lines.append(
                f"case {case.name} as a {side}: {case.behavior}, its closing {case.closing};"
                f" see {case.report}"
            )
        elif case.verdict is Verdict.NON_STRICT:
            excused.setdefault(NON_STRICT[case.name], []).append(case.name)
    for reason, names in excused.items():
        lines.append(f"as a {side} passed, but not strictly: {', '.join(names)} ({reason})")
    return lines
