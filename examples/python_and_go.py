"""Python and Go: a service by roletalk-go and a Python peer ask each other.

The wire is the same, so neither side knows what the other is written in: `go/main.go` serves
"inventory" by github.com/xshkut/roletalk-go, this file serves "prices", and the Go service asks
back over the connection that Python made.

Look at the key: it is one that a Go peer holds, so it is added with ``legacy=True`` (the default)
and used for nothing else (docs/security.md says why). And at the reject: roletalk-go does not send
the text that its handler gave.

Run it with ``python python_and_go.py``. It needs a Go toolchain and, the first time, the Go module
proxy; without either it says so.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import roletalk

SOURCE = Path(__file__).parent / "go"
PRICES = {"tea": 3.5, "coffee": 9.0}


def build(folder: Path) -> Path | None:
    """The program that `go build` makes of ``go/``, in `folder`; None where it cannot be, and why is said."""
    go = shutil.which("go")
    if go is None:
        print("not run: there is no Go toolchain on PATH (https://go.dev/dl/)")
        return None
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    if subprocess.run([go, "mod", "download"], cwd=SOURCE, env=environment, check=False).returncode:
        print("not run: the Go module cannot be downloaded")
        return None
    program = folder / ("inventory.exe" if sys.platform == "win32" else "inventory")
    subprocess.run([go, "build", "-o", str(program), "."], cwd=SOURCE, env=environment, check=True)
    return program


async def talk(address: str, key: str) -> None:
    async with roletalk.Peer(name="shop") as peer:
        peer.add_key("inventory", key)

        @peer.role("prices").on_request("of")
        def price(ctx: roletalk.RequestContext) -> float:
            print(f"Go asks for the price of {ctx.data}")
            return PRICES[ctx.data]

        unit = await peer.connect(f"ws://{address}")
        print(f"connected to {unit.name!r}, which runs on {unit.meta['runtime']}")
        inventory = peer.destination("inventory")
        reply = await inventory.request("count", "tea", timeout=5.0)
        print(f"tea: {reply.data:g} in stock")
        reply = await inventory.request("value", {"item": "coffee"}, timeout=5.0)
        print(f"coffee: worth {reply.data['value']:g}")
        try:
            await inventory.request("count", "unicorns", timeout=5.0)
        except roletalk.RemoteError as error:
            print(f"refused by {error.unit.name if error.unit else '?'}: {error.text}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        program = await asyncio.to_thread(build, Path(name))
        if program is None:
            return
        key = roletalk.generate_key()
        service = await asyncio.create_subprocess_exec(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "INVENTORY_KEY": f"inventory={key}"},
        )
        assert service.stdin is not None
        assert service.stdout is not None
        try:
            address = (await service.stdout.readline()).decode().strip()
            await talk(address, key)
        finally:
            service.stdin.close()  # the service ends with it
            await service.wait()


if __name__ == "__main__":
    asyncio.run(main())
