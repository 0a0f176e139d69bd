"""How far the run is: a bar on a terminal, plain lines with percentages anywhere else."""

import sys
from importlib import import_module
from typing import Any

PLAIN_STEP = 0.05  # of the whole, between two lines


class Progress:
    """Of `steps` in all.  What is printed meanwhile goes through `say`."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._scenario = ""
        self._said = -PLAIN_STEP
        self._bar: Any = None  # tqdm comes without types
        if sys.stderr.isatty():
            # Needed only here: without a terminal, whoever has no tqdm can measure all the same.
            tqdm = import_module("tqdm").tqdm
            layout = "{percentage:3.0f}% |{bar:30}| {elapsed}, {remaining} to go  {desc}"
            self._bar = tqdm(total=steps, bar_format=layout, dynamic_ncols=True, leave=False)

    def begin(self, scenario: str) -> None:
        """The next steps are of `scenario`."""
        self._scenario = scenario

    def step(self, turn: str) -> None:
        """`turn` begins: whatever was under way is done."""
        label = f"{self._scenario}: {turn}"
        if self._bar is not None:
            self._bar.set_description_str(label, refresh=False)
            self._bar.n = self._done
            self._bar.refresh()
        elif self._done / self._steps >= self._said + PLAIN_STEP:
            self._said = self._done / self._steps
            print(f"[{self._said:4.0%}] {label}", file=sys.stderr, flush=True)
        self._done = min(self._done + 1, self._steps)

    def reach(self, steps: int) -> None:
        """So many are done, even if some of them were left out."""
        self._done = min(steps, self._steps)

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
