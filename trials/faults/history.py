"""What callers saw and what a server did, and whether the one can have come of the other.

A caller notes when it invoked an operation and what became of it, a server each execution, all of them
by the operation's number. `History.violations` then holds the two against each other: a model checker for
an exactly-once reply over at-most-once requests.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Rule(enum.Enum):
    """What must never be found; the text is what it is called among the figures."""

    LOST = "acknowledged, but never executed"
    TWICE = "executed twice"
    UNKNOWN = "executed, but never invoked"
    FOREIGN = "answered with another one's reply"
    ENDLESS = "never ended"
    ENDED_TWICE = "ended twice"
    LATE = "ended after its timeout"
    UNDOCUMENTED = "failed in a way that is not documented"


class Violation(NamedTuple):
    rule: Rule
    number: int
    text: str

    def __str__(self) -> str:
        return f"operation {self.number} {self.rule.value}: {self.text}"


@dataclass
class Operation:
    """invoked_at, ended_at: seconds on one clock.  timeout: seconds that it may take; None: any.

    answer: what acknowledged it.  error: what it failed with.  expected: the only right answer, None
    where there is none, as of a message: it is then acknowledged by nobody, whatever its caller sees.
    """

    invoked_at: float
    timeout: float | None
    expected: object = None
    ended_at: float | None = None
    answer: object = None
    error: BaseException | None = None
    endings: int = 0

    @property
    def acknowledged(self) -> bool:
        return self.endings > 0 and self.error is None and self.expected is not None

    @property
    def overrun(self) -> float:
        """Seconds that it took beyond its timeout; negative when it ended earlier."""
        if self.ended_at is None or self.timeout is None:
            return float("-inf")
        return self.ended_at - self.invoked_at - self.timeout


@dataclass
class History:
    """`documented`: the errors that an operation may fail with.

    slack: seconds after its timeout at which an operation has not ended late yet.
    """

    documented: tuple[type[BaseException], ...]
    slack: float = 1.0
    operations: dict[int, Operation] = field(default_factory=dict)
    executions: Counter[int] = field(default_factory=Counter)

    # -- what happens

    def invoke(
        self,
        at: float,
        *,
        timeout: float | None = None,
        expected: object = None,
        number: int | None = None,
    ) -> int:
        """An operation begins; returns its number, a new one if none is given."""
        if number is None:
            number = len(self.operations)
        self.operations[number] = Operation(at, timeout, expected)
        return number

    def acknowledge(self, number: int, answer: object, at: float) -> None:
        self._end(number, at).answer = answer

    def fail(self, number: int, error: BaseException, at: float) -> None:
        self._end(number, at).error = error

    def execute(self, number: int) -> None:
        self.executions[number] += 1

    def _end(self, number: int, at: float) -> Operation:
        operation = self.operations[number]
        operation.ended_at = at
        operation.endings += 1
        return operation

    # -- what is to be made of it

    def violations(self) -> list[Violation]:
        """All of them, once every caller has ended and the server has nothing left to execute."""
        return [*self._of_operations(), *self._of_executions()]

    def _of_operations(self) -> Iterator[Violation]:
        for number, operation in self.operations.items():
            if operation.endings == 0:
                yield Violation(Rule.ENDLESS, number, f"invoked at {operation.invoked_at:.3f} s")
            elif operation.endings > 1:
                yield Violation(Rule.ENDED_TWICE, number, f"{operation.endings} times")
            if operation.overrun > self.slack:
                yield Violation(Rule.LATE, number, f"{operation.overrun:.3f} s after it")
            if operation.error is not None and not isinstance(operation.error, self.documented):
                yield Violation(Rule.UNDOCUMENTED, number, repr(operation.error))
            if operation.acknowledged:
                if self.executions[number] == 0:
                    yield Violation(Rule.LOST, number, f"with {operation.answer!r}")
                if operation.answer != operation.expected:
                    text = f"{operation.answer!r} in place of {operation.expected!r}"
                    yield Violation(Rule.FOREIGN, number, text)

    def _of_executions(self) -> Iterator[Violation]:
        for number, times in self.executions.items():
            if times > 1:
                yield Violation(Rule.TWICE, number, f"{times} times")
            if number not in self.operations:
                yield Violation(Rule.UNKNOWN, number, f"{times} times")

    def counts(self) -> Mapping[Rule, int]:
        """How many violations of each rule there are."""
        found = Counter(violation.rule for violation in self.violations())
        return {rule: found[rule] for rule in Rule}

    @property
    def acknowledged(self) -> int:
        return sum(operation.acknowledged for operation in self.operations.values())

    def failures(self) -> Counter[str]:
        """How many operations failed with each type of error, by its name."""
        return Counter(
            type(operation.error).__name__
            for operation in self.operations.values()
            if operation.error is not None
        )

    def latest(self) -> float:
        """Seconds that the last of all to end took beyond its timeout; negative when none did."""
        return max((operation.overrun for operation in self.operations.values()), default=0.0)
