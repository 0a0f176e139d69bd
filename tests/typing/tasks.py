"""Task groups, which came with Python 3.11."""

from __future__ import annotations

import asyncio
import sys

from typing_extensions import assert_type

import roletalk

if sys.version_info >= (3, 11):

    async def grouped(to: roletalk.Destination) -> None:
        async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(to.request("hello"))
            sent = tasks.create_task(to.send("seen"))
            opened = tasks.create_task(to.writable("upload"))
        assert_type(asked, asyncio.Task[roletalk.Context])
        assert_type(sent, asyncio.Task[None])
        assert_type(opened, asyncio.Task[roletalk.WritableStream])
