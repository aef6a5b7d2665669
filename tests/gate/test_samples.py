"""What samples say: exact tests, looks and decisions, seeds that differ, what a budget finds, two runs."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
from gate_kit import seed_pairs, sessions, training
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mnist_bench import stats
from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.gate import samples
from mnist_bench.gate.conduct import detectable
from mnist_bench.gate.evidence import Margins, SeedPair, SessionRatio

unhurried = settings(deadline=None)  # scipy's exact distribution takes milliseconds, on a busy machine more
logs = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=1, max_size=40)
bounds = st.floats(-0.5, 0.5).map(lambda x: round(x, 6))


def of_pairs(values: Sequence[float]) -> samples.SpeedFinding:
    return samples.find_speed(list(values), 1)


def of_seeds(seeds: Sequence[SeedPair], cells: int = 1) -> samples.AccuracyFinding:
    return samples.find_accuracy(seeds, cells)


def spread(ratio: float, pairs: int, sd: float = 0.01) -> list[float]:
    """Log ratios about a ratio, evenly spread in a mixed order, no two equally far from it."""
    order = np.random.default_rng(0).permutation(pairs)
    return [float(x) for x in math.log(ratio) + scipy.stats.norm.ppf((order + 0.6) / (pairs + 0.1)) * sd]


def equal(seed: int) -> SeedPair:
    return SeedPair(a=training(0.97, f"s{seed}", seed), b=training(0.97, f"s{seed}", seed))


def dropped(drop: float, seeds: int, spread: float = 0.0005) -> tuple[SeedPair, ...]:
    """Seeds whose accuracies drop by so much on average, give or take a spread."""
    return seed_pairs([0.97] * seeds, [0.97 - drop + spread * (-1) ** n for n in range(seeds)])


def worse(both: list[tuple[float, float]], more: float) -> tuple[SeedPair, ...]:
    """Four seeds with a drop of 5 points and ``more``, half of it on either side: the floor hardly moves."""
    four = (both * 4)[:4]
    return seed_pairs([a + more / 2 for a, _ in four], [b - 0.05 - more / 2 for _, b in four])


# ── laws of both ─────────────────────────────────────────────────────────────────────────────────────────────────────

FEW = st.lists(st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)), min_size=1, max_size=80)
LOGS = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=40)


@unhurried
@given(LOGS, FEW)
def test_swapping_the_sides_turns_the_finding_round(values, both):
    there, back = of_pairs(values), of_pairs([-value for value in values])
    assert not there.decision == back.decision == "fail"
    assert there.decision != "improvement" or back.decision == "fail"
    if there.count == back.count:
        assert back.ratio.estimate == pytest.approx(1 / there.ratio.estimate)
        assert there.ratio.low is None or back.ratio.high == pytest.approx(1 / there.ratio.low)
    a, b = zip(*both, strict=True)
    forth, again = of_seeds(seed_pairs(a, b)), of_seeds(seed_pairs(b, a))
    assert not forth.decision == again.decision == "fail"
    if forth.seeds == again.seeds:
        assert again.change.estimate == pytest.approx(-forth.change.estimate)
        low, high = forth.change.low, forth.change.high  # none below three that differ
        assert low is None or (low, high) == pytest.approx((-again.change.high, -again.change.low))


@unhurried
@given(
    st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12),
    st.lists(st.tuples(st.floats(0.9, 1), st.floats(0.9, 1)), min_size=1, max_size=4),
    st.floats(0, 0.5),
)
def test_what_is_worse_is_never_judged_better(values, both, more):
    order = ["improvement", "pass", "undecided", "fail"]
    for before, after in (
        (of_pairs(values), of_pairs([value + more for value in values])),
        (of_seeds(worse(both, 0)), of_seeds(worse(both, more / 10))),
    ):
        assert order.index(after.decision) >= order.index(before.decision)


@pytest.mark.parametrize(
    ("early", "later", "found"),
    [(spread(1.12, 9), spread(0.5, 30), of_pairs), (dropped(0.02, 6), dropped(-0.05, 20), of_seeds)],
)
def test_the_first_decision_stands(early, later, found):
    """What came after it changes nothing, not even the estimate."""
    assert found(early).decision == "fail"
    assert found([*early, *later]) == found(early)


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@unhurried
@given(st.integers(1, 10_000), st.floats(1e-4, 0.5))
def test_the_first_look_has_the_fewest_pairs_that_can_decide_and_all_share_the_level(cells, alpha):
    for margin, least in ((0.03, 4), (0.0, 4), (0.09, 6)):
        planned = samples.looks(cells, Margins(alpha=alpha, margin=margin))
        first, *later = planned
        assert 0.5**first <= planned[first] == alpha / 2 / cells < 0.5 ** (first - 1)
        assert sum(planned.values()) == pytest.approx(alpha / cells)
        assert [first, *later] == sorted(planned)
        assert len(planned) >= least


class TestExactTest:
    @unhurried
    @given(logs, bounds)
    def test_is_the_tail_of_the_exact_distribution(self, values, bound):
        distances = np.abs(np.subtract(values, bound))
        assume(len(set(distances.tolist())) == len(values) and distances.min() > 0)
        ranks = scipy.stats.rankdata(distances)
        rank_sum = round(ranks[np.greater(values, bound)].sum())
        tail = stats.signed_rank_distribution(len(values))[rank_sum:].sum()
        assert samples.p_above(values, bound) == pytest.approx(tail, rel=1e-9)

    @unhurried
    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
    def test_ties_and_zeros_never_help_to_reject(self, values, data):
        """However they are told apart, the p-value is no larger."""
        size = len(values)
        apart = np.add(values, data.draw(st.lists(st.floats(-1e-3, 1e-3), min_size=size, max_size=size)))
        assert samples.p_above(apart, 0.0) <= samples.p_above(values, 0.0)
        assert samples.p_below(apart, 0.0) <= samples.p_below(values, 0.0)
        # The one below has the larger rank.
        assert samples.p_above([1.0, -1.0], 0.0) == samples.p_above([1.0, -2.0], 0.0) == 0.75

    @unhurried
    @given(logs, bounds, st.floats(0, 1))
    def test_slower_is_never_less_significant(self, values, bound, more):
        assert samples.p_above(np.add(values, more), bound) <= samples.p_above(values, bound)
        assert samples.p_below(np.add(values, more), bound) >= samples.p_below(values, bound)
        assert samples.p_above(values, bound + more) >= samples.p_above(values, bound)


class TestPairs:
    def test_between_looks_nothing_is_tested(self):
        """Twelve pairs that say nothing, then eight that would fail: not tested before the 21st."""
        undecided = spread(1.06, 12, sd=0.08)
        finding = of_pairs([*undecided, *spread(1.5, 8)])
        assert (finding.decision, finding.count, finding.next_look) == ("undecided", 20, 21)
        assert finding.p_slower == of_pairs(undecided).p_slower < 1
        assert of_pairs([*undecided, *spread(1.5, 9)]).decision == "fail"

    def test_fail_is_tested_before_pass_and_margins_are_the_users(self):
        """6 % slower, precisely: shown beyond 3 %, and 10 % is ruled out."""
        finding = of_pairs(spread(1.06, 12))
        assert finding.decision == "fail"
        assert finding.p_within <= finding.alpha
        strict = Margins(margin=0.005, detect=0.02)
        for ratio, decision in ((1.02, "fail"), (0.97, "improvement")):
            assert samples.find_speed(spread(ratio, 12, sd=0.005), 1, strict).decision == decision


class TestDetectable:
    @settings(deadline=None, max_examples=25)  # each number of cells draws a sample
    @given(st.integers(1, 40), st.floats(0.001, 0.2))
    def test_laws(self, cells, sd):
        first, second, *_, last = samples.looks(cells)
        found = [detectable(look, cells, sd) for look in samples.looks(cells)]
        assert found == sorted(found, reverse=True)
        assert found[-1] > 0.03
        assert detectable(first - 1, cells, sd) == math.inf
        assert detectable(second - 1, cells, sd) == found[0]  # pairs between looks find no more
        assert detectable(first, cells, 2 * sd) > found[0]
        assert detectable(first, cells, sd, power=0.99) > found[0] > detectable(first, cells, sd, power=0.5)
        assert detectable(last, cells, sd, Margins(margin=0.05)) > found[-1]


# ── accuracy ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class TestEqualPredictions:
    @pytest.mark.parametrize("change", [{"predictions_sha256": "x"}, {"accuracy": 0.5}, {"images": 60_000}])
    def test_all_must_be_equal_and_an_unknown_hash_equals_nothing(self, change):
        one = equal(0)
        assert one.identical
        assert not SeedPair(a=one.a, b=replace(one.b, **change)).identical
        assert not SeedPair(**{side: replace(one.a, predictions_sha256="") for side in "ab"}).identical

    @unhurried
    @given(st.permutations([*(equal(n) for n in range(5)), *dropped(0.002, 5, spread=0.0)]))
    def test_neither_mask_a_drop_nor_vouch_wherever_they_stand(self, seeds):
        """The verdict and the change are those of the seeds that differ."""
        finding, alone = of_seeds(seeds), of_seeds(dropped(0.002, 5, spread=0.0))
        assert finding.decision == alone.decision
        assert finding.change.estimate == pytest.approx(alone.change.estimate)
        bad = dropped(0.01, 6)
        among = of_seeds([*(equal(n) for n in range(50)), *bad])
        assert (among.decision, among.change) == ("fail", of_seeds(bad).change)
        assert (among.seeds, among.identical) == (56, 50)


class TestSeedsThatDiffer:
    def test_between_looks_nothing_is_tested(self):
        assert of_seeds(dropped(0.0, 13, spread=0.0)).decision == of_seeds(dropped(0.0, 9, spread=0.0)).decision
        undecided = dropped(0.004, 4, spread=0.0)
        for more in ((), dropped(0.03, 1), dropped(0.03, 2)):  # seed 5 and 6 spread so much
            assert of_seeds([*undecided, *more]).decision == "undecided"
        assert of_seeds([*undecided, *dropped(0.004, 2)]).seeds == 6

    def test_the_least_spread_is_that_of_two_trainings(self):
        a, b = training(0.99, "a"), training(0.97, "b", images=60_000)
        assert samples.floor_variance([a], [b]) == pytest.approx(0.01 / 20_000 + 0.03 / 120_000)
        perfect = [training(1.0, "p")]  # no error is no certainty
        assert samples.floor_variance(perfect, perfect) == pytest.approx(2 * 1e-4 / 20_000)

    def test_seeds_that_happen_to_agree_prove_little(self):
        """Four times the same drop of 0.2 pp: no spread of their own, and still not decided."""
        finding = of_seeds(dropped(0.002, 4, spread=0.0))
        assert finding.decision == "undecided"
        half = scipy.stats.t.ppf(0.975, 3) * math.sqrt((0.03 + 0.032) / 20_000 / 4)
        assert (finding.change.low, finding.change.high) == pytest.approx((-0.002 - half, -0.002 + half))

    @pytest.mark.parametrize(("cells", "seeds"), [(1, 6), (20, 9)])
    def test_a_wreck_fails_at_the_first_look_that_a_plateau_cannot_explain(self, cells, seeds):
        """Nothing fails before two humps that are no change at all would hardly ever look like it."""
        assert 0.25**seeds <= samples.drop_level(cells)
        wreck = dropped(0.7, seeds)
        assert of_seeds(wreck, cells).decision == "fail"
        assert of_seeds(wreck[:-1], cells).decision == "undecided"
        assert of_seeds(wreck[:4], cells).more_seeds == seeds - 4
        at_the_level = Margins(drop_alpha=len(samples.SEED_LOOKS) * 0.25**6)
        assert samples.find_accuracy(dropped(0.7, 6), 1, at_the_level).decision == "fail"


WIDE = [0.2 * (-1) ** n for n in range(samples.SEED_LOOKS[-1] + 3)]


@pytest.mark.parametrize(
    ("seeds", "more"),
    [
        (dropped(0.05, 1), samples.SEED_LOOKS[1] - 1),  # a clear drop needs the first look that may fail
        (dropped(0.0, 1, spread=0.0), samples.SEED_LOOKS[2] - 1),
        (seed_pairs([0.9, 0.9], [0.95, 0.85]), samples.SEED_LOOKS[-1] - 2),  # in between: all of them
        ([equal(0), equal(1), *dropped(0.05, 1)], 3 * (samples.SEED_LOOKS[1] - 1)),  # one in three differs
        (seed_pairs([0.8] * len(WIDE), [0.8 + one for one in WIDE]), 0),  # after the last look none helps
    ],
)
def test_so_many_more_seeds_reach_the_look_that_would_decide(seeds, more):
    finding = of_seeds(seeds)
    assert (finding.decision, finding.more_seeds) == ("undecided", more)


# ── two runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class TestTwoRuns:
    """A ratio of ratios: its error rates by simulation, without training, and how it is made."""

    CELLS = 20
    VARIANTS = 5  # that share a reference, and so its process
    WITHIN_SD = 0.008  # of a session's median over its rounds

    def draw(self, rng: np.random.Generator, seeds: int, process_sd: float) -> np.ndarray:
        """Session medians of one side, shape (cells, seeds): every session has a process of its cell, and shares one of
        the reference with the other variants of its group."""
        each = process_sd / math.sqrt(2)
        own = rng.normal(0, each, (self.CELLS, seeds))
        shared = np.repeat(rng.normal(0, each, (self.CELLS // self.VARIANTS, seeds)), self.VARIANTS, axis=0)
        return own - shared + rng.normal(0, self.WITHIN_SD, (self.CELLS, seeds))

    def side(self, log_ratios: np.ndarray) -> tuple[SessionRatio, ...]:
        return sessions(*log_ratios.tolist(), sd=math.hypot(PROCESS_SD, self.WITHIN_SD))

    def decisions(self, checks: int, seeds: int, ratio: float, process_sd: float = PROCESS_SD) -> np.ndarray:
        """Of checks of 20 cells, all of them slower by ``ratio``; errors are stated as the project states them."""
        rng = np.random.default_rng(20)
        found = []
        for _ in range(checks):
            a, b = self.draw(rng, seeds, process_sd), self.draw(rng, seeds, process_sd) + math.log(ratio)
            both = zip(map(self.side, a), map(self.side, b), strict=True)
            found.append([samples.find_shift(x, y, self.CELLS, Margins()).decision for x, y in both])
        return np.array(found)

    @pytest.mark.parametrize("seeds", [1, 3])
    @pytest.mark.parametrize(("ratio", "process_sd", "most"), [(1.0, 1, 0.01), (1.03, 1, 0.01), (1.0, 2, 0.03)])
    def test_what_is_tolerated_raises_no_alarm(self, seeds, ratio, process_sd, most):
        """Nor does mlp, whose processes differed by twice as much in a noisy hour: what a session states is then too
        small by nearly half."""
        decisions = self.decisions(600, seeds, ratio, process_sd * PROCESS_SD)
        assert (decisions == "fail").any(axis=1).mean() <= most

    @pytest.mark.parametrize(
        ("seeds", "ratio", "decision", "least"),
        [
            (3, 1.0, "pass", 0.97),
            (3, 1.15, "fail", 0.99),
            (3, 1.20, "fail", 0.999),
            (1, 1.20, "fail", 0.85),
            (1, 1.15, "fail", 0.25),
            (1, 1.0, "undecided", 0.6),
        ],
    )
    def test_finds_what_it_should(self, seeds, ratio, decision, least):
        assert (self.decisions(100, seeds, ratio) == decision).mean() >= least

    def test_a_slow_down_that_must_be_seen_hardly_passes(self):
        """Whoever passes is certified: a slow-down of 10 % passes at most as often as the level says."""
        assert (self.decisions(100, 3, 1.10) == "pass").mean() <= 0.001

    @pytest.mark.parametrize("seeds", [1, 2, 3, 5])
    def test_intervals_hold_the_truth(self, seeds):
        """At least 95 %: a scatter that happens to be small does not narrow them."""
        rng = np.random.default_rng(seeds)
        held = 0
        for _ in range(1500):
            a, b = self.draw(rng, seeds, PROCESS_SD)[0], self.draw(rng, seeds, PROCESS_SD)[0] + math.log(1.07)
            ratio = samples.shift_of((self.side(a), -1), (self.side(b), 1)).faster
            held += ratio.low <= 1 / 1.07 <= ratio.high
        assert 0.94 <= held / 1500 <= 0.99

    def test_errors_are_stretched_by_what_the_sessions_scatter_more(self):
        """Two sessions 0.1 apart that state 0.01 each, and one of 0.02: worked by hand."""
        shift = samples.shift_of((sessions(0.0, 0.1, sd=0.01), -1), (sessions(0.2, sd=0.02), 1))
        assert (shift.estimate, shift.freedom) == (pytest.approx(0.15), 11)
        assert shift.error == pytest.approx(math.sqrt((1e-4 / 2 + 4e-4) * (10 + 2 * 0.05**2 / 1e-4) / 11))

    @pytest.mark.parametrize("ratio", [0.0, 0.05, 0.5])
    def test_as_many_seeds_decide_as_are_said_and_no_fewer(self, ratio):
        for sd in (0.0005 * 1.2**n for n in range(24)):
            needed = samples.seeds_needed(sessions(0.0, sd=sd), sessions(ratio, sd=sd), 3, Margins())
            for seeds in range(max(1, needed - 1), needed + 1):
                sides = sessions(*[0.0] * seeds, sd=sd), sessions(*[ratio] * seeds, sd=sd)
                undecided = samples.find_shift(*sides, 3, Margins()).decision == "undecided"
                assert undecided == (seeds < needed)

    def test_so_many_seeds_decide(self):
        needed = samples.seeds_needed(sessions(0.0), sessions(0.0), self.CELLS, Margins())
        assert needed in range(2, 6)
        for seeds, decision in ((needed, "pass"), (needed - 1, "undecided")):
            one = sessions(*[0.0] * seeds)
            assert samples.find_shift(one, one, self.CELLS, Margins()).decision == decision
        between = samples.seeds_needed(sessions(0.0), sessions(0.0625), 1, Margins())
        assert needed < between < 30
        assert samples.seeds_needed(sessions(0.0, sd=2.0), sessions(0.06, sd=2.0), 1, Margins()) is None

    @pytest.mark.parametrize("sds", [(1e-9, 50.0), (50.0, 50.0), (1e-9, 1e-9)])
    def test_whatever_can_stand_in_a_file_is_judged(self, sds):
        """The widest that the bounds of a stored ratio leave: no overflow, no division by nothing."""
        a, b = sessions(-46.0, 46.0, sd=sds[0]), sessions(46.0, 46.0, sd=sds[1])
        found = samples.find_shift(a, b, 1, Margins())
        assert 0 < found.ratio.low <= found.ratio.estimate <= found.ratio.high < math.inf
        assert (samples.seeds_needed(a, b, 1, Margins()) or 1) >= 1
