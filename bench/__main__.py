"""Measures roletalk beside others, in turns, and writes a report.

python -m bench                           all scenarios, in about ten minutes
python -m bench --quick                   the most telling ones, in less than two
python -m bench compare OLD.json NEW.json  what got slower beyond the noise; exit status 1 if any
python -m bench report RESULTS.json       writes the reports of earlier results once more
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from .compare import TOLERANCE, compare, comparison_text
from .page import page
from .report import markdown_text, scenario_text, targets_text
from .results import BadResults, Run, load, save

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = "results.json"
USAGE_ERROR = 2
INTERRUPTED = 130


def write_reports(run: Run, folder: Path) -> None:
    """``results.md`` and ``report.html``; says where they are."""
    for name, text in (("results.md", markdown_text(run)), ("report.html", page(run))):
        (folder / name).write_text(text, "utf-8")
        print(f"wrote {folder / name}")


def command_run(arguments: Sequence[str]) -> int:
    # Not needed to compare or to report, which work where nothing can be measured.
    from .contenders import Contenders
    from .measure import measure, turns_ahead
    from .progress import Progress
    from .scenarios import chosen
    from .setting import QUIET_LOAD, describe_setting, load_average

    parser = _parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer scenarios, shorter turns")
    parser.add_argument("--rounds", type=int, default=5, help="of each turn (default: 5)")
    parser.add_argument("--seconds", type=float, help="a turn (default: 1; quick: 0.4)")
    parser.add_argument(
        "--scenario", action="append", choices=chosen(quick=False), help="may be repeated"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: build/bench/<time>")
    options = parser.parse_args(arguments)
    seconds = options.seconds if options.seconds is not None else 0.4 if options.quick else 1.0
    if options.rounds < 1 or seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    if options.scenario:
        everything = chosen(quick=False)
        scenarios = {name: everything[name] for name in options.scenario}
    else:
        scenarios = chosen(quick=options.quick)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = options.output or REPOSITORY / "build" / "bench" / stamp
    folder.mkdir(parents=True, exist_ok=True)

    run = Run(describe_setting(options.rounds, seconds), {})
    named = [name for name in ("CPU", "Python", "roletalk") if name in run.setting]
    print(", ".join(f"{name} {run.setting[name]}" for name in named))
    if (busy := load_average()) is not None and busy > QUIET_LOAD:
        print(f"the machine is busy (load {busy:.1f}): trust the CPU figures, not the rates")
    progress = Progress(turns_ahead(scenarios.values(), options.rounds))
    reached = 0
    try:
        with Contenders() as contenders:
            for name, scenario in scenarios.items():
                progress.begin(name)
                outcome = measure(scenario, contenders, options.rounds, seconds, progress.step)
                run.outcomes[name] = outcome
                reached += turns_ahead([scenario], options.rounds)
                progress.reach(reached)
                progress.say(scenario_text(name, outcome))
                save(run, folder / RESULTS)
    except KeyboardInterrupt:
        print("\ninterrupted: the reports hold what was finished", file=sys.stderr)
        return INTERRUPTED
    finally:
        # Also after a failure: some scenarios may have taken minutes.
        progress.close()
        if run.outcomes:
            print(targets_text(run))
            print(f"wrote {folder / RESULTS}")
            write_reports(run, folder)
    return 0


def command_compare(arguments: Sequence[str]) -> int:
    parser = _parser("What got slower from one run to another, beyond the noise.", "compare")
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"by which medians may differ, as a fraction (default: {TOLERANCE})",
    )
    options = parser.parse_args(arguments)
    if options.tolerance < 0:
        parser.error("--tolerance must not be negative")
    old, new = load(options.old), load(options.new)
    changes = compare(old, new, options.tolerance)
    print(comparison_text(old, new, changes))
    return int(any(change.slower for change in changes))


def command_report(arguments: Sequence[str]) -> int:
    parser = _parser("Writes results.md and report.html of earlier results.", "report")
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: beside the results")
    options = parser.parse_args(arguments)
    run = load(options.results)
    folder = options.output or options.results.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_reports(run, folder)
    return 0


def _parser(description: str | None, command: str = "") -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m bench {command}".strip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"compare": command_compare, "report": command_report}
    command = commands.get(words[0]) if words else None
    try:
        return command_run(words) if command is None else command(words[1:])
    except (BadResults, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
