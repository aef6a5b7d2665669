"""``check.json``: what is written is read back, a person can read it, and whatever is not as written is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from gate_factory import KINDS, every_kind, hostile, make_check, make_evidence, make_pair, make_seeds, of_kinds
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_cell

from mnist_bench.errors import UsageError
from mnist_bench.gate.output.codec import decode, encode
from mnist_bench.gate.records import (
    CellEvidence,
    Check,
    ProcessPair,
    RatioEvidence,
    SessionLogRatio,
    SideFault,
    SideInfo,
    Verdict,
)
from mnist_bench.records import Cell, Failure, Round, Skip
from mnist_bench.stats import Interval

FIGURES = st.floats(-1e100, 1e100)
TIMES = st.floats(1e-9, 1e6)
TEXTS = st.text(max_size=20)
CELLS = st.builds(Cell, model=TEXTS, device=TEXTS, batch_size=st.integers(1, 10**6), variant=TEXTS)
ROUNDS = st.builds(
    Round,
    order=st.permutations((0, 1)).map(tuple),
    steps=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    seconds=st.tuples(TIMES, TIMES),
)
PAIRS = st.builds(
    ProcessPair,
    number=st.integers(0, 10**6),
    log_ratio=st.floats(-5, 5),
    rounds=st.lists(ROUNDS, max_size=3).map(tuple),
    noisy=st.lists(TEXTS, max_size=2).map(tuple),
)
FAULTS = st.builds(
    SideFault,
    side=st.sampled_from(("A", "B")),
    outcome=st.builds(Skip, reason=TEXTS) | st.builds(Failure, kind=st.sampled_from(("oom", "failed")), reason=TEXTS),
)
EVIDENCE = st.builds(
    CellEvidence,
    cell=CELLS,
    differences=st.lists(TEXTS, max_size=2).map(tuple),
    faults=st.lists(FAULTS, max_size=2).map(tuple),
    pairs=st.lists(PAIRS, max_size=3, unique_by=lambda pair: pair.number).map(tuple),
    seeds=st.sampled_from((0.0, -0.004)).map(make_seeds),
    min_accuracy=st.none() | FIGURES,
)
CHECKS = st.builds(
    lambda cells, label, changed, notes, spent: make_check(
        cells, b=SideInfo(label=label, commit=None, changed=tuple(changed)), notes=tuple(notes), spent_s=spent
    ),
    st.lists(EVIDENCE, max_size=3, unique_by=lambda evidence: evidence.cell),
    TEXTS,
    st.lists(TEXTS, max_size=3),
    st.lists(TEXTS, max_size=2),
    TIMES,
)


def values() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(*every_kind()))
    return found


def refusal(document: Any) -> str:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(UsageError) as caught:
        decode(data, source="some/check.json")
    text = str(caught.value)
    assert text.startswith("some/check.json: ")
    assert text.isprintable()
    return text


class TestRoundTrip:
    def test_every_kind(self) -> None:
        assert decode(encode(*every_kind())) == every_kind()

    @settings(max_examples=60)
    @given(CHECKS, st.lists(st.sampled_from(KINDS), max_size=3))
    def test_any_check(self, check: Check, kinds: list[Any]) -> None:
        verdicts = of_kinds(*kinds)[1]
        data = encode(check, verdicts)
        assert decode(data) == (check, verdicts)
        assert encode(*decode(data)) == data

    @given(FIGURES)
    def test_figures_keep_every_digit(self, figure: float) -> None:
        check = make_check([make_evidence(min_accuracy=figure)])
        (evidence,) = decode(encode(check, ()))[0].cells
        assert evidence.min_accuracy == figure

    def test_names_that_are_no_unicode(self) -> None:
        made = hostile(["caf\udce9.py", "\ud800", "\x00\x1b[31m", "</script>\u2028"])
        assert decode(encode(*made)) == made

    @pytest.mark.parametrize("status", ["running", "interrupted"])
    def test_a_check_that_is_not_complete(self, status: Any) -> None:
        made = every_kind(status=status, ended_at=None, budget_s=None)
        assert decode(encode(*made)) == made


class TestForPeople:
    def test_version_first_then_indented(self) -> None:
        lines = encode(*every_kind()).decode().splitlines()
        assert lines[:3] == ["{", '  "schema_version": 2,', '  "check": {']
        assert lines[-1] == "}"

    def test_a_round_is_a_line(self) -> None:
        lines = encode(make_check([make_evidence(pairs=(make_pair(log_ratio=0.1),))]), ()).decode().splitlines()
        rounds = [line for line in lines if '"steps"' in line]
        assert len(rounds) == 3
        assert all('"order"' in line and '"seconds"' in line for line in rounds)
        assert max(map(len, lines)) <= 140

    def test_what_is_short_stands_on_one_line(self) -> None:
        text = encode(*every_kind()).decode()
        assert '"cell": {"model": "lenet5", "device": "cpu", "batch_size": 100, "variant": "eager"}' in text


def of_sessions(**changes: Any) -> RatioEvidence:
    """One session a side; that of B with these changes."""
    session = SessionLogRatio(seed=0, log_ratio=0.1, sd=0.02, rounds=20)
    return RatioEvidence(reference="mlp/cpu/b100/eager", a=(session,), b=(replace(session, **changes),))


class TestRefused:
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
    def test_cut_short(self, share: float) -> None:
        data = encode(*every_kind())
        text = refusal(data[: int(share * (len(data) - 2))])
        assert "is not JSON" in text
        assert "take the file again" in text

    @pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"nonsense", b"[" * 100_000])
    def test_no_json(self, data: bytes) -> None:
        refusal(data)

    @pytest.mark.parametrize("document", [[], 1, None, "x", {}, {"check": {}, "verdicts": []}])
    def test_no_check(self, document: Any) -> None:
        assert "is no check.json" in refusal(document)

    @pytest.mark.parametrize("version", [1, 3, 0, "1", None, True, 1.5, [1]])
    def test_another_version(self, version: Any) -> None:
        text = refusal({**values(), "schema_version": version})
        assert f"schema_version {version!r}" in text
        assert "read it with the version that wrote it" in text

    @pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e999", "1e300", "-1e101", "1" + "0" * 400])
    def test_what_is_no_figure(self, figure: str) -> None:
        text = encode(*every_kind()).decode().replace('"detect": 0.1', f'"detect": {figure}')
        assert "check.margins.detect is" in refusal(text.encode())

    @pytest.mark.parametrize(
        ("path", "where"),
        [
            (("verdicts",), "verdicts"),
            (("check", "cells"), "check.cells"),
            (("check", "margins", "alpha"), "check.margins.alpha"),
            (("check", "notes"), "check.notes"),
            (("check", "cells", 0, "pairs"), "check.cells[0].pairs"),
            (("check", "cells", 0, "pairs", 1, "log_ratio"), "check.cells.0.pairs.1.log_ratio"),
            (("verdicts", 0, "speed", "next_look"), "verdicts.0.speed.next_look"),
        ],
    )
    def test_a_missing_key_even_one_with_a_default(self, path: tuple[Any, ...], where: str) -> None:
        document: Any = values()
        place = document
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        text = refusal(document)
        assert where in text
        assert "edited or cut short" in text

    def test_an_unknown_key(self) -> None:
        document = values()
        document["check"]["cells"][3]["pairs"][0]["comment"] = "mine"
        assert "check.cells[3].pairs[0].comment: an unknown key" in refusal(document)

    def test_a_text_where_a_figure_belongs(self) -> None:
        document = values()
        document["check"]["cells"][0]["pairs"][2]["log_ratio"] = "0.25"
        assert "check.cells[0].pairs[2].log_ratio: '0.25' is not what belongs here" in refusal(document)

    def test_a_kind_of_failure_that_is_none(self) -> None:
        document = values()
        document["check"]["cells"][KINDS.index("failed")]["faults"][0]["outcome"]["kind"] = "bad luck"
        assert "Invalid enum value" in refusal(document)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"alpha": 0.0}, "check.margins.alpha"),
            ({"drop_alpha": 1.0}, "check.margins.drop_alpha"),
            ({"margin": 0.2}, "check.margins.margin"),
            ({"drop": -0.1}, "check.margins.drop"),
        ],
    )
    def test_margins_that_no_judge_could_work_with(self, changes: dict[str, float], words: str) -> None:
        document = values()
        document["check"]["margins"].update(changes)
        assert words in refusal(document)

    @pytest.mark.parametrize(
        "one",
        [
            {"order": [0, 1], "steps": [6], "seconds": [0.1, 0.1]},
            {"order": [0, 2], "steps": [6, 6], "seconds": [0.1, 0.1]},
            {"order": [0, 1], "steps": [6, -6], "seconds": [0.1, 0.1]},
            {"order": [0, 1], "steps": [6, 6], "seconds": [0.1, -0.1]},
            {"order": [0, 1], "steps": [6, 6], "seconds": [0.1, 0.0]},
            {"order": [0, 1], "steps": [6, 0], "seconds": [0.1, -0.1]},
            {"order": [], "steps": [], "seconds": []},
            {"order": [0, 1, 2], "steps": [6, 6, 6], "seconds": [0.1, 0.1, 0.1]},
        ],
    )
    def test_rounds_that_cannot_be(self, one: dict[str, Any]) -> None:
        document = values()
        document["check"]["cells"][0]["pairs"][1]["rounds"][0] = one
        assert "check.cells[0].pairs[1].rounds" in refusal(document)

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("pairs", (make_pair(1), make_pair(1)), "a number stands there twice"),
            ("pairs", (replace(make_pair(1), log_ratio=700.0),), "no ratio of two times"),
            ("pairs", (replace(make_pair(1), log_ratio=-700.0),), "no ratio of two times"),
            ("ratios", of_sessions(log_ratio=710.0), "ratios.log_ratio: 710.0 of seed 0 is no ratio of two times"),
            ("ratios", of_sessions(log_ratio=-51.0), "ratios.log_ratio: -51.0 of seed 0 is no ratio of two times"),
            ("ratios", of_sessions(sd=0.0), "ratios.sd: 0.0 is no standard error"),
            ("ratios", of_sessions(sd=1e-200), "ratios.sd: 1e-200 is no standard error"),
            ("ratios", of_sessions(sd=800.0), "ratios.sd: 800.0 is no standard error"),
            ("seeds", make_seeds() + make_seeds(), "a seed stands there twice"),
            ("seeds", make_seeds(0.5), "an accuracy lies between 0 and 1"),
        ],
    )
    def test_evidence_that_cannot_be(self, name: str, value: Any, words: str) -> None:
        assert words in refusal(encode(make_check([make_evidence(**{name: value})]), ()))

    def test_a_cell_that_stands_there_twice(self) -> None:
        assert "a cell stands there twice" in refusal(encode(make_check([make_evidence(), make_evidence()]), ()))

    def test_hostile_content_does_not_reach_the_terminal(self) -> None:
        document = values()
        document["check"]["mode"] = "\x1b[31mred\nline"
        refusal(document)
        refusal({**values(), "schema_version": "\x1b[31m"})
        refusal({**values(), "\x1b[31m": 1})


class TestEncode:
    @pytest.mark.parametrize("figure", [float("nan"), float("inf")])
    def test_what_is_not_finite_is_refused(self, figure: float) -> None:
        check, verdicts = every_kind()
        number = KINDS.index("regression")
        speed = verdicts[number].speed
        assert speed is not None
        broken: list[Verdict] = list(verdicts)
        broken[number] = replace(verdicts[number], speed=replace(speed, ratio=Interval(figure)))
        with pytest.raises(ValueError, match=rf"verdicts\[{number}\]\.speed\.ratio\.estimate is"):
            encode(check, broken)

    def test_another_version_is_refused(self) -> None:
        with pytest.raises(ValueError, match="schema_version"):
            encode(make_check(schema_version=99), ())

    def test_a_cell_is_named_by_its_parts(self) -> None:
        (evidence,) = json.loads(encode(make_check([make_evidence(make_cell("cnn"))]), ()))["check"]["cells"]
        assert evidence["cell"] == {"model": "cnn", "device": "cpu", "batch_size": 100, "variant": "eager"}
