"""Runs the blocks of one page as a reader would: in order, in one session."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    ExitStack,
    asynccontextmanager,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import pytest

import roletalk
from tests.helpers import run

from .network import ADDRESS, has_tools, machine_a, private_network
from .pages import ROOT, Block, Page

BLOCK_SECONDS: Final = 60.0  # of patience with one block; what hangs fails and is named
OUTPUT_SECONDS: Final = 20.0  # until what a page says is printed has been
END_SECONDS: Final = 10.0  # until what a page started has ended on SIGTERM


class PageError(AssertionError):
    """A block failed; the text begins with its file and line."""


def run_page(page: Page, folder: Path) -> None:
    """Run every block of `page` with `folder` as the current directory; raises `PageError`."""
    (folder / "page").mkdir()
    with ExitStack() as stack:
        session = Session(page, folder)
        is_private = page.runs("sh") and stack.enter_context(private_network())
        if page.machines and is_private and has_tools():
            session.on_a = stack.enter_context(machine_a())
        stack.enter_context(plain_logging())
        stack.enter_context(session.entered())
        run(session.main(), timeout=BLOCK_SECONDS * len(page.blocks))


class Session:
    """What the blocks of a page share: names, a directory, processes, and one output."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self.folder = folder / "page"
        self.output = folder / "output"
        self.module = ModuleType("__page__")
        self.groups: list[int] = []  # of processes, one for every sh block
        # What a command begins with that is to run on machine A; None where one machine plays both.
        self.on_a: list[str] | None = None
        self.expected_from = 0  # where in the output the last visible block's begins
        self.last: Block | None = None

    @contextmanager
    def entered(self) -> Iterator[Session]:
        """The directory is current and can be imported from; everything is put back in the end."""
        with pytest.MonkeyPatch.context() as patch, self.output.open("a", buffering=1) as printed:
            patch.chdir(self.folder)
            for machine in self.page.machines:
                (self.folder / machine).mkdir()
            patch.syspath_prepend(str(self.folder))
            patch.setitem(sys.modules, self.module.__name__, self.module)
            with redirect_stdout(printed), redirect_stderr(printed):
                try:
                    yield self
                finally:
                    self.module.__dict__.clear()
                    for name, module in tuple(sys.modules.items()):
                        if Path(getattr(module, "__file__", None) or "/").parent == self.folder:
                            del sys.modules[name]

    async def main(self) -> None:
        # A block may compute for as long as it likes.
        asyncio.get_running_loop().slow_callback_duration = BLOCK_SECONDS
        async with peers_closed():
            try:
                for block in self.page.blocks:
                    await self.take(block)
            finally:
                await asyncio.gather(*map(ended, self.groups))

    async def take(self, block: Block) -> None:
        if block.language == "text":
            if block.follows and self.last is not None:
                await self.compare(block)
            return
        if not block.is_hidden:
            self.last = block if block.is_run else None
            self.expected_from = self.output.stat().st_size
        if block.file_name:
            for machine in ("", *self.page.machines):
                path = self.folder / machine / block.file_name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.source, encoding="utf-8")
        elif block.is_run:
            await (self.python(block) if block.language == "python" else self.shell(block))

    async def python(self, block: Block) -> None:
        try:
            code = compiled(block)
            async with limited(block):
                result = eval(code, self.module.__dict__)
                if inspect.iscoroutine(result):
                    await result
        except PageError:
            raise
        except Exception as exc:
            raise PageError(f"{line_of(exc, block)}: {type(exc).__name__}: {exc}") from exc

    async def shell(self, block: Block) -> None:
        begin = self.output.stat().st_size
        source = block.source
        if self.page.machines and self.on_a is None:
            source = source.replace(ADDRESS["A"], "127.0.0.1")
        before = self.on_a if block.machine == "A" and self.on_a else []
        with self.output.open("ab") as printed:
            process = await asyncio.create_subprocess_exec(
                *before, "bash", "-euo", "pipefail", "-c", source,
                stdin=asyncio.subprocess.DEVNULL, stdout=printed, stderr=printed,
                cwd=self.folder / block.machine, env=environment(), start_new_session=True,
            )  # fmt: skip
            self.groups.append(process.pid)
            async with limited(block):
                status = await process.wait()
        if status != 0:
            raise PageError(f"{block.where}: exit status {status}:\n{self.printed(begin)}")

    def printed(self, begin: int) -> str:
        return self.output.read_bytes()[begin:].decode(errors="replace")

    async def compare(self, block: Block) -> None:
        """Wait until what was printed since the last visible block is what this one says."""
        pattern = ".*".join(map(re.escape, block.source.strip().split("...")))
        deadline = asyncio.get_running_loop().time() + OUTPUT_SECONDS
        while not re.fullmatch(pattern, self.printed(self.expected_from).strip(), re.DOTALL):
            if asyncio.get_running_loop().time() > deadline:
                raise PageError(
                    f"{block.where}: another output than the page says:\n"
                    f"{self.printed(self.expected_from)}"
                )
            await asyncio.sleep(0.01)


def compiled(block: Block) -> CodeType:
    """With top-level await, and with the page's lines, so that a traceback shows them."""
    code: CodeType = compile(
        "\n" * (block.line - 1) + block.source,
        str(block.page),
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    return code


def line_of(exc: BaseException, block: Block) -> str:
    """Where on the page it was raised: the innermost line of it in the traceback."""
    line = exc.lineno if isinstance(exc, SyntaxError) else None
    traceback = exc.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename == str(block.page):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{block.where.rpartition(':')[0]}:{line or block.line}"


@asynccontextmanager
async def limited(block: Block) -> AsyncIterator[None]:
    """Cancel the body, in this very task and context, where it takes too long."""
    task = asyncio.current_task()
    assert task is not None
    expired = []

    def expire() -> None:
        expired.append(True)
        task.cancel()

    timer = asyncio.get_running_loop().call_later(BLOCK_SECONDS, expire)
    try:
        yield
    except asyncio.CancelledError:
        if not expired:
            raise
        raise PageError(f"{block.where}: still running after {BLOCK_SECONDS:.0f} s") from None
    finally:
        timer.cancel()


@asynccontextmanager
async def peers_closed() -> AsyncIterator[None]:
    """Close the peers and cancel the tasks that the body left, as the end of a program would."""
    made: list[roletalk.Peer] = []
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks()
    own_init = roletalk.Peer.__init__

    def init(peer: roletalk.Peer, *args: Any, **kwargs: Any) -> None:
        own_init(peer, *args, **kwargs)
        made.append(peer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roletalk.Peer, "__init__", init)
        try:
            yield
        finally:
            here = [peer for peer in made if peer.loop is loop]
            await asyncio.gather(*(peer.close(timeout=1.0) for peer in here))
            left = asyncio.all_tasks() - others
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def plain_logging() -> Iterator[None]:
    """Logging as in a new interpreter, so that a page may configure it; put back in the end."""
    root = logging.getLogger()
    package = logging.getLogger("roletalk")
    kept = [(each, each.level, each.handlers[:], each.propagate) for each in (root, package)]
    root.handlers = []
    try:
        yield
    finally:
        for logger, level, handlers, propagate in kept:
            logger.setLevel(level)
            logger.handlers = handlers
            logger.propagate = propagate


def environment() -> dict[str, str]:
    """`python` is this one, and finds this roletalk."""
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
        "PYTHONUNBUFFERED": "1",
        # For what is not installed no entry point speaks.
        "PYTEST_PLUGINS": "pytest_roletalk",
    }


async def ended(group: int) -> None:
    """Stop what is left of a process group: by SIGTERM, and by SIGKILL where that does not do."""
    deadline = asyncio.get_running_loop().time() + END_SECONDS
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, wanted)
        except ProcessLookupError:
            return
        while is_alive(group) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)


def is_alive(group: int) -> bool:
    """Whether a process of the group runs; zombies, which init may be slow to reap, do not count."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            return True
    return False
