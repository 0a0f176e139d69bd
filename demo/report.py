"""What the demo prints: aligned lines, and checks that decide its exit status."""


class Report:
    """Lines under headings.  `status` is 1 once any check was not as it should be, else 0."""

    def __init__(self) -> None:
        self.status = 0
        self._heading = ""

    def section(self, heading: str) -> None:
        """What follows belongs to `heading`, which stands beside its first line."""
        self._heading = heading
        print()

    def line(self, text: str) -> None:
        print(f"{self._heading:<10}{text}", flush=True)
        self._heading = ""

    def check(self, good: bool, text: str) -> None:
        """A line that says whether `text` held."""
        self.line(f"{'ok  ' if good else 'FAIL'}  {text}")
        if not good:
            self.status = 1


def rate(number: int, seconds: float, unit: str) -> str:
    """``12,345 req/s``"""
    return f"{number / seconds:,.0f} {unit}/s"
