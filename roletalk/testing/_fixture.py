"""What the fixture of the pytest plugin does without a loop of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

from ._mesh import Mesh


class FixtureMesh(Mesh):
    """A mesh that is closed when its loop ends, if nobody has closed it before.

    Loops close the asynchronous generators that are left in them (`loop.shutdown_asyncgens`):
    ``asyncio.run`` does so, and what the plugins for async tests use.
    """

    def __init__(self) -> None:
        super().__init__()
        self._guard: AsyncGenerator[None, None] | None = None
        self._failure: AssertionError | None = None
        self._is_closed = False
        self._hub.on_bound = self._watch_loop

    def _watch_loop(self) -> None:
        self._guard = self._close_at_end()
        # It goes as far as its yield, without waiting for anything.
        with suppress(StopIteration):
            self._guard.asend(None).send(None)

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            try:
                await self.close()
            except AssertionError as failure:
                # The loop would only log it.
                self._failure = failure

    async def close(self) -> None:
        """As `Mesh.close`."""
        self._is_closed = True
        await super().close()

    def finish(self) -> None:
        """At the end of the test, outside of any loop."""
        loop = self._hub.loop
        if loop is not None and not loop.is_closed() and not loop.is_running():
            assert self._guard is not None
            loop.run_until_complete(self._guard.aclose())
        if self._failure is not None:
            raise self._failure
        if loop is not None and loop.is_closed() and not self._is_closed:
            raise AssertionError("the loop of the mesh was closed before its peers were")


def fixture_mesh() -> Iterator[Mesh]:
    mesh = FixtureMesh()
    yield mesh
    mesh.finish()
