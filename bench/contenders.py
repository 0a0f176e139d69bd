"""The pairs of processes that are measured, each started when it is first needed."""

import sys
from contextlib import ExitStack
from types import TracebackType

from .commands import Child
from .gopeer import NoGoPeer, build_go_peer
from .reference import build_cyecho
from .report import Sample
from .scenarios import Turn


class Unavailable(Exception):
    """A contender cannot run here; the text says why."""


class Contender:
    """The two processes of one contender.  Those of Go are left to use all cores."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        server, client = _commands(name)
        self._pinned = name != "go"
        self._server = stack.enter_context(Child(*server))
        self._client = stack.enter_context(Child(*client, str(self._server.ask("port"))))

    def pin(self, *, one_core: bool) -> None:
        if self._pinned:
            self._server.ask("pin", core=0)
            self._client.ask("pin", core=0 if one_core else 1)

    def measure(self, turn: Turn, seconds: float) -> Sample:
        """Take `turn` once."""
        server_cpu, client_cpu = self._server.ask("cpu"), self._client.ask("cpu")
        result = self._client.ask(turn.command, seconds=seconds, **turn.arguments)
        server_cpu = self._server.ask("cpu") - server_cpu
        client_cpu = self._client.ask("cpu") - client_cpu
        count = result["count"]
        return Sample(
            per_second=count / result["seconds"],
            client_us=1e6 * client_cpu / count,
            server_us=1e6 * server_cpu / count,
            p50_us=result.get("p50_us"),
            p99_us=result.get("p99_us"),
            bulk_per_second=result.get("bulk_per_second"),
        )


def _commands(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How the server and the client of a contender are started, the client but for its port."""
    if name == "go":
        program = build_go_peer()
        return (program, "server"), (program, "client")
    if name == "cyecho":
        build_cyecho()
    python = (sys.executable, "-m")
    return (*python, "bench.server", name), (*python, "bench.client", name)


class Contenders:
    """All of them, by name.  Leaving the block ends their processes."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._started: dict[str, Contender] = {}
        self._unavailable: dict[str, str] = {}

    def get(self, name: str) -> Contender:
        """Raises `Unavailable`."""
        if name in self._unavailable:
            raise Unavailable(self._unavailable[name])
        if name not in self._started:
            try:
                self._started[name] = Contender(name, self._stack)
            except NoGoPeer as error:
                self._unavailable[name] = str(error)
                raise Unavailable(str(error)) from error
        return self._started[name]

    def __enter__(self) -> "Contenders":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
