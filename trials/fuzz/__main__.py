"""Runs each target in a process of its own, and counts what it executed and found.

``python -m trials.fuzz --seconds N``; with clang on the PATH the compiled modules are built with
instruments first, so that the fuzzer sees which code its inputs reach; without it that code is fuzzed
blindly.  Whatever makes a target fail is kept in build/fuzz/finds/; give it to ``--replay``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from trials import figures
from trials.fuzz import CORPUS, INSTRUMENTED, ROOT, TARGETS

WORK = INSTRUMENTED.parent
FINDS = WORK / "finds"
MAX_LENGTH = 4096  # bytes of an input, where its target says nothing else
MAX_MEMORY = 2048  # MiB of a process
SLOW = 25  # s that one input may take
GRACE = 120.0  # s beyond its time until a process is taken for hung
# libFuzzer, and the runtime that the instruments in the compiled modules call.
RUNTIME = "ubsan_with_fuzzer.so"
INSTRUMENTS = "-fsanitize=fuzzer-no-link"


@dataclass
class Run:
    """What one target came to."""

    target: str
    executions: int
    seconds: float
    finds: list[Path]
    failed: bool


def targets() -> list[str]:
    return sorted(file.stem for file in TARGETS.glob("*.py") if file.stem != "__init__")


def build_instrumented() -> bool:
    """Compile with clang into build/fuzz/lib; False where there is none."""
    clang = shutil.which("clang")
    if clang is None or not sys.platform.startswith("linux"):
        shutil.rmtree(INSTRUMENTED, ignore_errors=True)
        return False
    environment = {
        **os.environ,
        "CC": clang,
        "ROLETALK_DEBUG": "1",
        "ROLETALK_WERROR": "0",
        "ROLETALK_BUILD": WORK.name,
        "ROLETALK_CFLAGS": INSTRUMENTS,
    }
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(INSTRUMENTED)]
    log = WORK / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        built = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    if built.returncode != 0:
        sys.exit(f"the build with instruments failed: see {log}")
    return True


def run(target: str, seconds: int, runs: int, *, instrumented: bool) -> Run:
    module = import_module(f"trials.fuzz.targets.{target}")
    grown = WORK / "corpus" / target
    for directory in (grown, FINDS, CORPUS / target):
        directory.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-runs={runs}",
        f"-max_len={getattr(module, 'MAX_LENGTH', MAX_LENGTH)}",
        f"-rss_limit_mb={MAX_MEMORY}",
        f"-timeout={SLOW}",
        f"-artifact_prefix={FINDS}/{target}-",
        "-print_final_stats=1",
        "-detect_leaks=0",
    ]
    words = getattr(module, "DICTIONARY", ())
    if words:
        dictionary = WORK / f"{target}.dict"
        dictionary.write_text("".join(map(_entry, words)))
        options.append(f"-dict={dictionary}")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if instrumented:
        atheris = find_spec("atheris")
        assert atheris is not None
        assert atheris.origin is not None
        environment["LD_PRELOAD"] = str(Path(atheris.origin).parent.parent / RUNTIME)
    command = [sys.executable, "-m", "trials.fuzz.one", target, *options, str(grown)]
    before = set(FINDS.iterdir())
    started = time.monotonic()
    log = WORK / f"{target}.log"
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                [*command, str(CORPUS / target)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                timeout=seconds + GRACE,
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    text = log.read_text("utf-8", "replace")
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    return Run(
        target,
        int(executed[1]) if executed else 0,
        time.monotonic() - started,
        sorted(set(FINDS.iterdir()) - before),
        status != 0,
    )


def _entry(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def report(done: list[Run], *, instrumented: bool) -> int:
    executions = sum(each.executions for each in done)
    rows = [
        figures.told("targets", len(done)),
        figures.told("executions", executions),
        figures.told("seconds", sum(each.seconds for each in done), "s"),
        figures.told("compiled code", "instrumented" if instrumented else "fuzzed blindly"),
        figures.at_most("targets that failed", sum(each.failed for each in done), 0),
    ]
    rows += [
        figures.told(
            f"executions of {each.target}",
            f"{each.executions:,} ({each.executions / max(each.seconds, 1):,.0f} per second)",
        )
        for each in done
    ]
    for each in done:
        for find in each.finds:
            print(f"{each.target}: python -m trials.fuzz --replay {find}", file=sys.stderr)
        if each.failed and not each.finds:
            print(f"{each.target}: see {WORK / each.target}.log", file=sys.stderr)
    return figures.report("fuzz", "make fuzz", rows)


def replay(find: Path) -> int:
    """One input once more, without a fuzzer; its target is what its name begins with."""
    target = find.name.partition("-")[0]
    if target not in targets():
        target = find.parent.name
    import_module(f"trials.fuzz.targets.{target}").test_one(find.read_bytes())
    print(f"{target}: passed")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (%(default)s)")
    parser.add_argument("--runs", type=int, default=-1, help="executions of each, at most")
    parser.add_argument("--target", action="append", choices=targets(), help="only this one")
    parser.add_argument("--replay", type=Path, help="run one input, without a fuzzer")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(options.replay)
    if find_spec("atheris") is None:
        print(
            f"atheris is not installed: pip install '.[fuzz]' (Python {sys.version.split()[0]} on"
            f" {sys.platform}; it has wheels for Linux on x86-64, elsewhere it needs clang)",
            file=sys.stderr,
        )
        return 2
    instrumented = build_instrumented()
    if not instrumented:
        print("no clang here: the compiled code is fuzzed blindly", file=sys.stderr)
    done = []
    for target in options.target or targets():
        done.append(run(target, options.seconds, options.runs, instrumented=instrumented))
        print(f"{target}: {done[-1].executions:,}", file=sys.stderr, flush=True)
    return report(done, instrumented=instrumented)


if __name__ == "__main__":
    sys.exit(main())
