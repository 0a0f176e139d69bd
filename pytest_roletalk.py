"""The pytest plugin of `roletalk.testing`: the fixture `roletalk_mesh`.

It stands outside of the package: pytest imports it in every run, and with it the package would be
imported, before a measurement of coverage begins and where nobody uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from roletalk.testing import Mesh


@pytest.fixture
def roletalk_mesh() -> Iterator[Mesh]:
    """A `roletalk.testing.Mesh` of this test's own; its peers are closed at the end.

    For async tests and for those that run a loop themselves (``asyncio.run``).  The mesh belongs to
    the loop that it is first used in, and is closed with that, or before.  The test fails when
    something of its peers is left then.
    """
    from roletalk.testing._fixture import fixture_mesh

    yield from fixture_mesh()
