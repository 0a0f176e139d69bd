"""The Autobahn test suite's ``wstest``: an environment of its own, and its two modes.

It runs on Python 2.7 alone, which no current tool makes environments for: a virtualenv that still does
is installed first, into an environment of this Python.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from trials.figures import RESULTS

from .echo import HOST, Echo, ask, converse, echo_server

VIRTUALENV: Final = "virtualenv==20.15.1"  # a later one makes none of Python 2.7
REQUIREMENTS: Final = Path(__file__).with_name("wstest.txt")
FOLDER: Final = RESULTS / "conformance"
AGENT: Final = "roletalk"
LEFT_OUT: Final = ("12.*", "13.*")
STARTED: Final = 30.0  # s until the suite listens, at the most

# No variable of this Python may reach the other one.
_ENVIRONMENT: Final = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))
}


class UnavailableError(Exception):
    """Why the suite cannot run on this machine."""


# -- the environment


def _candidates() -> Iterator[str]:
    named = os.environ.get("PYTHON27")
    if named:
        # And no other: whoever names one wants to know when it does not do.
        yield named
        return
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob("versions/2.7*/bin/python"), reverse=True))
    for name in ("python2.7", "python2"):
        found = shutil.which(name)
        if found:
            yield found


def find_python() -> str:
    """A Python 2.7 that starts.  Raises UnavailableError."""
    for candidate in _candidates():
        check = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
        try:
            done = subprocess.run(
                [candidate, "-c", check], capture_output=True, check=False, env=_ENVIRONMENT
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    raise UnavailableError(
        "the Autobahn test suite needs a Python 2.7; none is named by PYTHON27, kept by pyenv"
        " (`pyenv install 2.7.18` makes one), or on PATH"
    )


def prepare() -> Path:
    """``wstest``, installed unless it is there already.  Raises UnavailableError."""
    python = find_python()
    environment, tools = FOLDER / "python2.7", FOLDER / "virtualenv"
    stamp = environment / "made-of"
    recipe = f"{python}\n{VIRTUALENV}\n{REQUIREMENTS.read_text('utf-8')}"
    if not stamp.exists() or stamp.read_text("utf-8") != recipe:
        print(f"installing the Autobahn test suite for {python}, once: some minutes", flush=True)
        for old in (environment, tools):
            shutil.rmtree(old, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        pip = ("-m", "pip", "--disable-pip-version-check", "install", "-q")
        with open(FOLDER / "install.log", "wb") as log:
            for command in (
                (sys.executable, "-m", "venv", tools),
                (tools / "bin" / "python", *pip, VIRTUALENV),
                (tools / "bin" / "virtualenv", "-q", "-p", python, environment),
                (environment / "bin" / "python", *pip, "-r", REQUIREMENTS),
            ):
                done = subprocess.run(
                    command, stdout=log, stderr=log, check=False, env=_ENVIRONMENT
                )
                if done.returncode != 0:
                    raise UnavailableError(
                        "the Autobahn test suite could not be installed (it takes a C compiler and"
                        f" PyPI); why is in {log.name}"
                    )
        stamp.write_text(recipe, "utf-8")
    return environment / "bin" / "wstest"


# -- its two modes


@asynccontextmanager
async def _running(wstest: Path, mode: str, spec: dict[str, Any]) -> AsyncIterator[Any]:
    """The suite's process, ended at the latest with the block."""
    file = FOLDER / f"{mode}.json"
    file.write_text(json.dumps(spec, indent=1), "utf-8")
    with open(FOLDER / f"{mode}.log", "wb") as log:  # noqa: ASYNC230  # on a disk, in no time
        process = await asyncio.create_subprocess_exec(
            *(wstest, "-m", mode, "-s", file, "--webport", "0"),
            cwd=FOLDER,
            env=_ENVIRONMENT,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _spec(reports: Path, cases: list[str]) -> dict[str, Any]:
    # Or what an earlier run left would be taken for this one's.
    shutil.rmtree(reports, ignore_errors=True)
    return {
        "outdir": str(reports),
        "cases": cases,
        "exclude-cases": list(LEFT_OUT),
        "exclude-agent-cases": {},
    }


async def fuzz_server(wstest: Path, cases: list[str]) -> Path:
    """Let the suite connect to an echo server; the folder of its reports."""
    reports = FOLDER / "server"
    async with echo_server() as port:
        spec = _spec(reports, cases)
        spec["servers"] = [{"agent": AGENT, "url": f"ws://{HOST}:{port}"}]
        async with _running(wstest, "fuzzingclient", spec) as process:
            if await process.wait() != 0:
                raise RuntimeError(f"wstest failed; its log is {FOLDER / 'fuzzingclient.log'}")
    return reports


async def fuzz_client(wstest: Path, cases: list[str]) -> Path:
    """Let an echo client connect to the suite; the folder of its reports."""
    reports = FOLDER / "client"
    port = _free_port()
    spec = _spec(reports, cases)
    spec["url"] = f"ws://{HOST}:{port}"
    async with _running(wstest, "fuzzingserver", spec) as process:
        count = int(await asyncio.wait_for(_when_it_listens(process, port), STARTED))
        for case in range(1, count + 1):
            await converse(Echo(is_client=True), port, f"/runCase?case={case}&agent={AGENT}")
        await ask(port, f"/updateReports?agent={AGENT}")
    return reports


async def _when_it_listens(process: Any, port: int) -> bytes:
    while process.returncode is None:
        try:
            return await ask(port, "/getCaseCount")
        except OSError:
            await asyncio.sleep(0.1)
    raise RuntimeError(f"wstest ended; its log is {FOLDER / 'fuzzingserver.log'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
