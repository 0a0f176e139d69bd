"""The README's quick start runs as it is pasted."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .helpers import eventually, pair, ready, run

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(beginning: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (program,) = [block for block in blocks if block.startswith(beginning)]
    return str(program)


@pytest.mark.slow
def test_the_quick_start(tmp_path: Path) -> None:
    program = tmp_path / "hello.py"
    program.write_text(block("# hello.py\n"), encoding="utf-8")
    serving = subprocess.Popen(
        [sys.executable, "-u", str(program), "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            asking = subprocess.run(
                [sys.executable, str(program)],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            # Until the first one listens the second is refused.
            if asking.returncode == 0 or time.monotonic() > deadline:
                break
            assert "ConnectError" in asking.stderr
        assert asking.returncode == 0, asking.stderr
        assert re.fullmatch(r"Hello, Bob! from worker in \d+ µs\n", asking.stdout)
        assert serving.stdout is not None
        assert serving.stdout.readline() == "seen {'at': 1} by client\n"
    finally:
        serving.kill()
        serving.communicate()


def test_the_stream(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            names = {"store": server.role("store"), "peer": client, "folder": tmp_path}
            exec(block("@store.on_readable"), names)
            await ready(client, "store")
            (tmp_path / "sent").write_bytes(bytes(range(256)) * 10_000)
            await names["send"](tmp_path / "sent")  # type: ignore[operator]
            await eventually(lambda: server.stats()["streams"] == 0)
            assert (tmp_path / "7").read_bytes() == (tmp_path / "sent").read_bytes()

    run(main())


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_are_named(command: str) -> None:
    assert command in README
