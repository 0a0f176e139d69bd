"""What the benchmark makes of its samples: files, reports, verdicts.  Nothing is measured here."""

import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.compare import SAME, Change, chance, compare
from bench.figures import Spread, quotients, ratio
from bench.markup import Html, tag
from bench.page import page
from bench.report import markdown_text, scenario_text, targets_text
from bench.results import PERCENTILES, BadResults, Heading, Outcome, Round, Run, Sample, load, save
from bench.scenarios import chosen
from bench.tables import aligned, markdown
from bench.targets import GO, TARGETS, judge

HOSTILE = "<script>alert('x')</script> & \"quotes\" | pipe ](http://example.org)"
VOID = {"br", "col", "meta"}


def timed(rate: float, latency: float) -> Sample:
    curve = tuple(latency * (1 + at / 50) for at in PERCENTILES)
    return Sample(
        per_second=rate,
        client_us=3e5 / rate,
        server_us=2e5 / rate,
        p50_us=latency,
        p99_us=2 * latency,
        p999_us=4 * latency,
        latencies_us=curve,
    )


def a_run(*, speed: float = 1.0, rounds: int = 5, memory: float = 14.0, seed: int = 1) -> Run:
    """Ours at `speed` beside references, on a machine whose speed drifts by half."""
    noise = random.Random(seed)

    def near(value: float) -> float:
        return value * noise.uniform(0.98, 1.02)

    requests: list[dict[str, Sample]] = []
    for _ in range(rounds):
        drift = noise.uniform(0.7, 1.4)
        requests.append(
            {
                "ours": timed(near(480_000 * speed * drift), near(25 / speed / drift)),
                "cyecho": timed(near(160_000 * drift), near(19 / drift)),
                "go": timed(near(50_000 * drift), near(95 / drift)),
            }
        )
    labels = ("ours", "cyecho", "go", "grpc")
    heading = Heading("64 requests in flight", labels, "requests", ("rate", "p50", "CPU"), True)
    return Run(
        {"date": "2026-01-01", "CPU": "a processor", "cores": "2", "Python": "3.12"},
        {
            "p64": Outcome(heading, list(requests), {"grpc": "grpc is not installed"}),
            "memory": Outcome(
                Heading("an idle connection", ("ours", "go"), "", ("memory",)),
                [
                    {
                        "ours": Sample(kib_per_connection=near(memory)),
                        "go": Sample(kib_per_connection=near(27.0)),
                    }
                    for _ in range(2)
                ],
            ),
        },
    )


def words(changes: list[Change]) -> dict[tuple[str, str, str], str]:
    return {(change.scenario, change.figure, change.other): change.word for change in changes}


# -- figures


def test_a_ratio_is_taken_within_a_round() -> None:
    run = a_run()
    found = ratio(run.outcomes["p64"], "cyecho", "rate")
    assert found is not None
    # The machine drifts by a factor of two between the rounds; the ratio does not.
    assert 2.8 < found.least <= found.median <= found.most < 3.2


def test_a_round_without_one_of_both_is_left_out_of_a_ratio() -> None:
    outcome = a_run().outcomes["p64"]
    outcome.rounds[2] = {"ours": outcome.rounds[2]["ours"]}
    assert len(quotients(outcome, "cyecho", "rate")) == 4
    assert quotients(outcome, "grpc", "rate") == []


@pytest.mark.parametrize(
    ("spread", "text"),
    [
        (Spread(480_000.4, 1_000.0, 2e6), "480,000 (1,000..2,000,000)"),
        (Spread(25.72, 9.0, 131.0), "25.7 (9.0..131.0)"),
        (Spread(1.0, 0.994, 2.0), "1.00 (0.99..2.00)"),
        (Spread(0.0123, 0.01, 0.02), "0.012 (0.010..0.020)"),
        (Spread(0.0, 0.0, 0.0), "0.00 (0.00..0.00)"),
    ],
)
def test_how_a_spread_is_written(spread: Spread, text: str) -> None:
    assert str(spread) == text


# -- targets


def test_targets_are_judged_by_the_median() -> None:
    verdicts = {(v.target.scenario, v.target.others): v for v in judge(a_run())}
    assert verdicts["p64", ("cyecho",)].reached is True
    assert verdicts["p64", GO].reached is True
    assert verdicts["memory", ()].reached is True
    assert verdicts["sequential", ("cyecho",)].reached is None
    assert "not part of this run" in verdicts["sequential", ("cyecho",)].why_not
    run = a_run(speed=0.5)
    run.outcomes["memory"].rounds = [{"ours": Sample(kib_per_connection=19.6)}]
    slow = {(v.target.scenario, v.target.others): v for v in judge(run)}
    assert slow["p64", ("cyecho",)].reached is False
    assert slow["memory", ()].reached is False  # more than 20 KB, which are of 1000 bytes


def test_a_target_whose_reference_is_missing_says_why() -> None:
    run = a_run()
    outcome = run.outcomes["p64"]
    outcome.missing["go"] = "no Go toolchain"
    outcome.rounds = [{"ours": turns["ours"]} for turns in outcome.rounds]
    [verdict] = [v for v in judge(run) if (v.target.scenario, v.target.others) == ("p64", GO)]
    assert (verdict.reached, verdict.why_not) == (None, "go: no Go toolchain")


@pytest.mark.parametrize("quick", [False, True])
def test_what_the_targets_name_is_measured(quick: bool) -> None:
    scenarios = chosen(quick=quick)
    for target in TARGETS:
        heading = scenarios[target.scenario].heading
        assert target.figure in heading.ratios
        assert set(target.others) <= set(heading.labels[1:])


# -- files


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    run = a_run()
    save(run, tmp_path / "results.json")
    assert load(tmp_path / "results.json") == run
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def saved(path: Path) -> Any:
    save(a_run(), path)
    return json.loads(path.read_text("utf-8"))


def test_files_that_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for content, why in [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1]", "no schema"),
        (b'{"setting": {}}', "no schema"),
        (b'{"schema": 0}', "has schema 0"),
        (b'{"schema": 2}', "has schema 2, and this version reads schema 1"),
        (b'{"schema": 1}', "setting"),
        (b"[" * 100_000, "cannot be read"),
    ]:
        path.write_bytes(content)
        with pytest.raises(BadResults, match=re.escape(str(path))) as caught:
            load(path)
        assert why in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("rounds", 0, "ours", "per_second"), "fast", "Expected `float | null`, got `str`"),
        (("rounds", 1, "ours", "per_second"), -1.0, "per_second of 'ours' in round 2 is -1.0"),
        (("rounds", 0, "ours", "p50_us"), float("nan"), "p50_us of 'ours' in round 1 is nan"),
        (("rounds", 0, "ours", "latencies_us"), [1.0, 2.0], "in round 1 has 2 points"),
        (("rounds", 0, "nobody"), {}, "round 1 has 'nobody', which is none of its turns"),
        (("missing", "nobody"), "gone", "'nobody' is missing, but is none of its turns"),
        (("heading", "labels"), [], "it has no turns"),
        (("heading", "about"), None, "Expected `str`, got `null`"),
    ],
)
def test_a_fault_in_a_file_is_named(
    tmp_path: Path, place: tuple[Any, ...], value: Any, why: str
) -> None:
    path = tmp_path / "results.json"
    content = saved(path)
    inner = content["outcomes"]["p64"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(BadResults, match=re.escape(why)):
        load(path)


# -- comparing


def test_nothing_changed_but_the_noise() -> None:
    assert set(words(compare(a_run(seed=1), a_run(seed=2))).values()) == {SAME}


def test_slower_and_faster() -> None:
    slower = words(compare(a_run(seed=1), a_run(seed=2, speed=0.8)))
    assert set(slower.values()) == {"slower", SAME}
    assert {key for key, word in slower.items() if word == SAME} == {("memory", "memory", "")}
    faster = words(compare(a_run(seed=1, speed=0.8), a_run(seed=2)))
    assert {key for key, word in faster.items() if word != "faster"} == {("memory", "memory", "")}


def test_a_change_within_the_tolerance_is_none() -> None:
    old, new = a_run(seed=1), a_run(seed=2, speed=0.93)
    assert set(words(compare(old, new)).values()) == {SAME}
    assert words(compare(old, new, tolerance=0.01))["p64", "rate", "cyecho"] == "slower"


def test_a_change_that_the_rounds_do_not_bear_out_is_none() -> None:
    old, new = a_run(seed=1), a_run(seed=2, speed=0.8)
    outcome = new.outcomes["p64"]
    turns = dict(outcome.rounds[0])
    turns["ours"] = replace(turns["ours"], per_second=1e9)
    outcome.rounds[0] = turns
    assert words(compare(old, new))["p64", "rate", "cyecho"] == SAME


def test_three_rounds_say_nothing() -> None:
    found = words(compare(a_run(rounds=3), a_run(rounds=3, speed=0.1)))
    assert found["p64", "rate", "cyecho"] == "too few rounds"


def test_memory_is_compared_as_it_is() -> None:
    key = ("memory", "memory", "")
    assert words(compare(a_run(memory=14), a_run(memory=18, seed=2)))[key] == "slower"
    assert words(compare(a_run(memory=18), a_run(memory=14, seed=2)))[key] == "faster"


def test_what_only_one_run_has_is_no_change() -> None:
    whole, part = a_run(), a_run()
    del part.outcomes["p64"]
    assert words(compare(whole, part))["p64", "rate", "go"] == "only in the old run"
    assert words(compare(part, whole))["p64", "rate", "go"] == "only in the new run"


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        ([4, 5, 6], [1, 2, 3], 1 / 20),
        ([3, 5, 6], [1, 2, 4], 2 / 20),
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([6, 7, 8, 9, 10], [1, 2, 3, 4, 5], 1 / 252),
        ([2, 2], [2, 2], 1.0),
        ([1, 4], [2, 3], 4 / 6),
    ],
)
def test_the_chance_of_an_order(above: list[float], below: list[float], expected: float) -> None:
    assert chance(above, below) == pytest.approx(expected)


def test_the_command_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, other = (tmp_path / name for name in ("old.json", "new.json", "other.json"))
    save(a_run(seed=1), old)
    slow = a_run(seed=2, speed=0.8)
    slow.setting["Python"] = "3.13"
    save(slow, new)
    other.write_text('{"schema": 99}', "utf-8")

    assert main(["compare", str(old), str(new)]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^Python +3\.12 +3\.13$", said, re.MULTILINE)
    assert re.search(r"^p64 +rate +cyecho .* -\d\d% +slower$", said, re.MULTILINE)
    assert main(["compare", str(new), str(old)]) == 0
    assert main(["compare", str(old), str(old)]) == 0
    capsys.readouterr()
    assert main(["compare", str(old), str(other)]) == 2
    assert "has schema 99" in capsys.readouterr().err
    assert main(["compare", str(old), str(tmp_path / "absent.json")]) == 2


# -- text


def test_columns_are_aligned() -> None:
    text = aligned(["", "rate"], [["ours", "480,000"], ["somebody", "9"]])
    assert text == "                rate\n  ours       480,000\n  somebody         9"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_markdown_table_keeps_its_shape() -> None:
    lines = markdown(["", "rate"], [["ours", "480,000"], [HOSTILE + "\nline", "9"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [len(cells(line)) for line in lines] == [2, 2, 2, 2]
    assert re.fullmatch(r"\| -+ \| -+: \|", lines[1])
    assert lines[2].endswith("| 480,000 |")
    assert "<script>" not in lines[3]
    assert not re.search(r"(?<!\\)\]\(", lines[3])


def test_the_markdown_says_it_all() -> None:
    run = a_run()
    text = markdown_text(run)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        lines = table.splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len({len(cells(line)) for line in lines}) == 1
    assert text.index("## Targets") < text.index("## Setting") < text.index("### p64")
    assert re.search(r"64 requests in flight, sync handler: rate, to cyecho +\| reached", text)
    assert str(ratio(run.outcomes["p64"], "go", "rate")) in text
    assert re.search(r"\| grpc +\| grpc is not installed \|", text)
    assert re.search(r"\| CPU +\| a processor +\|", text)


def test_the_terminal_says_it_all() -> None:
    run = a_run()
    text = scenario_text("p64", run.outcomes["p64"])
    assert "requests/s" in text
    assert re.search(r"^  cyecho .*\d\.\d\d \(\d\.\d\d\.\.\d\.\d\d\)", text, re.MULTILINE)
    assert "  grpc: not measured: grpc is not installed" in text
    assert "3 of 3 targets reached\n" in targets_text(run)
    assert targets_text(Run({}, {})) == ""


def test_a_scenario_of_which_nothing_was_measured() -> None:
    outcome = Outcome(Heading("nothing", ("ours", "go"), "", ("rate",)), [], {"ours": "broken"})
    run = Run({}, {"empty": outcome})
    assert "ours: not measured: broken" in scenario_text("empty", outcome)
    assert "broken" in markdown_text(run)
    assert "broken" in page(run)


# -- HTML


class Reader(HTMLParser):
    """Fails where an element is not closed; notes what the page would load, and its text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(a_run())
    reader = read(text)
    assert {"svg", "polyline", "rect", "table", "style", "figure"} <= reader.tags
    assert not {"script", "link", "img", "iframe", "object"} & reader.tags
    assert not [name for name, _ in reader.attributes if name in ("src", "href", "srcset")]
    assert "//" not in re.sub(r"\s", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "nan" not in {value for _, value in reader.attributes}


def test_lengths_in_the_page_are_within_it() -> None:
    reader = read(page(a_run()))
    percents = [float(v[:-1]) for n, v in reader.attributes if re.fullmatch(r"[\d.-]+%", v)]
    assert len(percents) > 100
    assert all(0 <= value <= 100 for value in percents)


def test_the_page_says_it_all() -> None:
    reader = read(page(a_run()))
    for text in ("grpc was not measured: grpc is not installed", "a processor", "not part of"):
        assert text in reader.text
    assert "grid" in reader.text  # the style sheet is in it


def test_hostile_text_stays_text() -> None:
    run = a_run()
    run.setting["CPU"] = HOSTILE
    outcome = run.outcomes.pop("p64")
    heading = replace(outcome.heading, about=HOSTILE, labels=("ours", "cyecho", "go", HOSTILE))
    rounds: list[Round] = [{**turns, HOSTILE: turns["go"]} for turns in outcome.rounds]
    run.outcomes[HOSTILE] = Outcome(heading, rounds, {"go": HOSTILE})
    reader = read(page(run))
    assert "script" not in reader.tags
    assert reader.text.count(HOSTILE) >= 5


def test_attributes_and_children_are_escaped() -> None:
    assert tag("p", "<", Html("<br>"), title='"&') == '<p title="&quot;&amp;">&lt;<br></p>'
    assert tag("col", class_="a", aria_label=None) == '<col class="a">'


def test_the_command_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(a_run(), tmp_path / "results.json")
    assert main(["report", str(tmp_path / "results.json"), "--output", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "results.md"]
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
