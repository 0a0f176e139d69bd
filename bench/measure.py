"""Taking turns: what drives the contenders through the rounds of a scenario."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .commands import Broken, Unknown
from .contenders import PATIENCE_SECONDS, Contenders, Pair, Unavailable
from .latencies import Latencies
from .results import Outcome, Sample
from .scenarios import Scenario, Turn

WARM_UP_SECONDS = 0.2
SETTLE_SECONDS = 0.3

# Connections that are open before those that are weighed: they pay for what is there only once.
FIRST_CONNECTIONS = 50


def turns_ahead(scenarios: Iterable[Scenario], rounds: int) -> int:
    """How often `measure` will call `progress` for all of them, if nothing is missing."""
    return sum(len(s.turns) * (s.rounds_of(rounds) + s.warm_up) for s in scenarios)


def measure(
    scenario: Scenario,
    contenders: Contenders,
    rounds: int,
    seconds: float,
    progress: Callable[[str], object],
) -> Outcome:
    """A warm-up, then `rounds` of all turns, one after the other, each for so many seconds.

    `progress` is called with the label of each before it begins.  A contender that fails is started
    once more; if it fails again its turn is noted as missing, and left out of the rounds to come.
    """
    outcome = Outcome(scenario.heading, [])

    def take_all(seconds: float) -> dict[str, Sample]:
        samples = {}
        for turn in scenario.turns:
            if turn.label not in outcome.missing:
                progress(turn.label)
                try:
                    samples[turn.label] = _take(turn, scenario, contenders, seconds)
                except Unavailable as error:
                    outcome.missing[turn.label] = str(error)
        return samples

    try:
        if scenario.warm_up:
            take_all(min(seconds, WARM_UP_SECONDS))
        for _ in range(scenario.rounds_of(rounds)):
            outcome.rounds.append(take_all(seconds))
    finally:
        contenders.close_connections()
    return outcome


def _take(turn: Turn, scenario: Scenario, contenders: Contenders, seconds: float) -> Sample:
    """Raises `Unavailable`."""
    failure = ""
    for is_new in (False, True):
        try:
            if turn.command == "memory":
                return _weigh(turn, contenders)
            pair = contenders.get(turn.contender)
            pair.prepare(one_core=scenario.one_core, connections=scenario.connections)
            command = _fan_out if turn.command == "fan_out" else _time
            if is_new:
                command(turn, pair, WARM_UP_SECONDS)
            return command(turn, pair, seconds)
        except Broken as error:
            failure = str(error)
            contenders.discard(turn.contender)
        except Unknown as error:
            raise Unavailable(str(error)) from error
    raise Unavailable(failure)


def _time(turn: Turn, pair: Pair, seconds: float) -> Sample:
    """What the client does, and what it takes of both."""
    before = pair.server_cpu()
    answer = pair.ask(turn.command, seconds, turn.arguments)
    after = pair.server_cpu()
    result: Mapping[str, Any] = answer.value
    count = result["count"]
    if not count:
        raise Broken(f"{turn.command}: nothing was done in {seconds:g} s")
    per_second, client_us = count / result["seconds"], 1e6 * answer.cpu_seconds / count
    server_us = None if before is None or after is None else 1e6 * (after - before) / count
    bulk = result.get("bulk_per_second")
    if not result["latencies_ns"]:
        return Sample(per_second, client_us, server_us, bulk_per_second=bulk)
    latencies = Latencies(result["latencies_ns"])
    return Sample(
        per_second=per_second,
        client_us=client_us,
        server_us=server_us,
        p50_us=latencies.at_us(50),
        p99_us=latencies.at_us(99),
        p999_us=latencies.at_us(99.9),
        latencies_us=latencies.curve_us(),
        bulk_per_second=bulk,
    )


def _fan_out(turn: Turn, pair: Pair, seconds: float) -> Sample:
    """What the server sends to many, until the client has all of it."""
    within = seconds + PATIENCE_SECONDS
    before = pair.client_cpu()
    told = pair.server.ask("fan_out", within=within, seconds=seconds, **turn.arguments)
    count = told.value["sent"]
    arrived = pair.client.ask("arrived", within=within, count=count).value
    client_seconds = pair.client_cpu() - before
    if not count:
        raise Broken(f"{turn.command}: nothing was done in {seconds:g} s")
    return Sample(
        per_second=count / (arrived - told.value["began"]),
        client_us=1e6 * client_seconds / count,
        server_us=1e6 * told.cpu_seconds / count,
    )


def _weigh(turn: Turn, contenders: Contenders) -> Sample:
    """What connections add to a server that is new: one that had more before would have room."""
    pair = contenders.start(turn.contender)
    try:
        weights = []
        for count in (FIRST_CONNECTIONS, FIRST_CONNECTIONS + turn.arguments["count"]):
            pair.prepare(one_core=False, connections={"count": count})
            time.sleep(SETTLE_SECONDS)
            pair.server.ask("settle", within=PATIENCE_SECONDS)
            weights.append(pair.server.resident_bytes())
    except OSError as error:
        raise Unavailable(f"nothing tells the resident memory here: {error}") from error
    finally:
        pair.kill()
    return Sample(kib_per_connection=(weights[1] - weights[0]) / 1024 / turn.arguments["count"])
