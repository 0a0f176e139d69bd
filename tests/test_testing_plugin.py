"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow

SERVICE = """
import asyncio

async def meet(mesh):
    server, client = mesh.peer("server"), mesh.peer("client")
    server.role("r").on_request("echo")(lambda ctx: ctx.data)
    await mesh.connect(client, server)
    r = client.destination("r")
    await r.wait_ready(5)
    assert (await r.request("echo", 1)).data == 1
    return server
"""


def outcome(source: str, tmp_path: Path) -> str:
    """What pytest says of tests in `source`, with no plugin but ours."""
    (tmp_path / "test_service.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "pytest_roletalk", "-p", "no:cacheprovider"]
    # In the checkout, so that its roletalk is the one that is imported.
    return subprocess.run(
        [*command, "-q", f"--rootdir={tmp_path}", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    ).stdout


def test_plain_tests_that_run_a_loop_themselves(tmp_path: Path) -> None:
    said = outcome(
        SERVICE
        + """
from roletalk.testing import run_in_virtual_time

def closed(mesh):
    return all(peer.closing and not peer.units for peer in mesh.peers)

def test_plain(roletalk_mesh):
    asyncio.run(meet(roletalk_mesh))
    assert closed(roletalk_mesh)

def test_virtual(roletalk_mesh):
    async def main():
        await meet(roletalk_mesh)
        await asyncio.sleep(3600)
    run_in_virtual_time(main())
    assert closed(roletalk_mesh)

def test_entered(roletalk_mesh):
    async def main():
        async with roletalk_mesh as mesh:
            await meet(mesh)
    asyncio.run(main())

idle = []

def test_a_loop_that_ends_after_the_fixture(roletalk_mesh):
    loop = asyncio.new_event_loop()
    idle.append((loop, roletalk_mesh))
    loop.run_until_complete(meet(roletalk_mesh))

def test_it_was_closed():
    loop, mesh = idle.pop()
    assert closed(mesh)
    loop.close()

def test_unused(roletalk_mesh):
    assert roletalk_mesh.peers == ()
""",
        tmp_path,
    )
    assert "6 passed" in said, said


def test_what_is_left_fails_the_test(tmp_path: Path) -> None:
    said = outcome(
        SERVICE
        + """
ended = asyncio.Event()

async def stubborn():
    while not ended.is_set():
        try:
            await asyncio.wait_for(ended.wait(), 3)
        except asyncio.CancelledError:
            pass

def test_left(roletalk_mesh):
    async def main():
        server = await meet(roletalk_mesh)
        server.on_unit(lambda unit: stubborn())
        await roletalk_mesh.connect(roletalk_mesh.peer(), server)
        asyncio.get_running_loop().call_later(2, ended.set)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())

def test_too_late(roletalk_mesh):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(meet(roletalk_mesh))
    loop.close()
""",
        tmp_path,
    )
    assert "left behind on the mesh: " in said, said
    assert "the loop of the mesh was closed before its peers were" in said, said
    assert "2 passed, 2 errors" in said, said


ASYNC = """
@MARK
async def test_on_a_mesh(roletalk_mesh):
    await meet(roletalk_mesh)

@MARK
async def test_entered(roletalk_mesh):
    async with roletalk_mesh as mesh:
        await meet(mesh)
"""


@pytest.mark.parametrize("plugin", ["anyio", "pytest_asyncio"])
def test_async_tests(plugin: str, tmp_path: Path) -> None:
    pytest.importorskip(plugin)
    mark = plugin.removeprefix("pytest_")
    source = f"import pytest\n{SERVICE}{ASYNC.replace('MARK', f'pytest.mark.{mark}')}"
    source += "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    said = outcome(source, tmp_path)
    assert "2 passed" in said, said


def test_nothing_is_imported_before_it_is_used(tmp_path: Path) -> None:
    said = outcome(
        "import sys\n\ndef test_unused():\n    assert 'roletalk' not in sys.modules\n", tmp_path
    )
    assert "1 passed" in said, said
