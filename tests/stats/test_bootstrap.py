"""The bootstrap: against golden vectors, against its definition written as a loop, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t, ttest_1samp
from sklearn.metrics import f1_score

from harness.errors import ConfigError, DataError
from harness.leaderboard.inference import difference, intervals, shared_seeds
from harness.record import Interval
from harness.stats import bootstrap, inference
from harness.stats.inference import Difference
from harness.stats.metrics import Floats
from helpers.runs import results_of


def frame(group: Any, gold: Any, chosen: Any, category: Any = "object") -> pd.DataFrame:
    ids = [f"e{k}" for k in range(len(gold))]
    return pd.DataFrame({"id": ids, "group": group, "category": category, "gold": gold, "chosen": chosen})


def noisy(seed: int, right: float = 0.7, groups: int = 30, per_group: int = 3) -> pd.DataFrame:
    """Answers to the same 90 three-choice questions (gold fixed), right with this chance."""
    gold = np.random.default_rng(0).integers(0, 3, groups * per_group)
    rng = np.random.default_rng(seed)
    chosen = np.where(rng.random(len(gold)) < right, gold, rng.integers(0, 3, len(gold)))
    return frame(np.repeat(np.arange(groups), per_group), gold, chosen)


def across_seeds(runs: list[pd.DataFrame], metric: str = "accuracy") -> Interval:
    """The mean over runs of several seeds with its interval, as a ranking has it."""
    return intervals(results_of(dict(enumerate(runs)), metrics=[metric]), metric)[0]


def paired(a: dict[int, pd.DataFrame], b: dict[int, pd.DataFrame]) -> Difference:
    """A minus B in accuracy, as a ranking has it."""
    found = difference(*results_of(a, b), "accuracy")
    assert found is not None
    return found


# ------------------------------------------------------------------------------------- golden vectors


def plain_difference(
    a: pd.DataFrame, b: pd.DataFrame, labels: list[str], metric: str, resamples: int, seed: int
) -> tuple[float, Floats]:
    """A minus B, and its plain resamples over groups."""
    group_n, groups = bootstrap.group_numbers(a["group"])
    figures = []
    for side in (a, b):
        units = bootstrap.tallies_of(side, group_n, groups, metric, labels)
        formula = bootstrap.formula_of(metric, units.sum(0), labels)
        figures.append((formula(units.sum(0)), formula(bootstrap.resampled_sums(units, resamples, seed))))
    (value_a, drawn_a), (value_b, drawn_b) = figures
    return float(value_a - value_b), drawn_a - drawn_b


@pytest.mark.parametrize("name", ["clusters_120", "clusters_30", "all_clusters_size_1"])
def test_golden_accuracy_difference(golden: Path, name: str) -> None:
    known = json.loads((golden / "stats_bootstrap.json").read_text())
    case, scores = known["predictions"][name], known["scores"][name]
    ones = np.ones(len(case["cluster"]), dtype=int)
    a, b = (frame(case["cluster"], ones, case[f"correct_{side}"]) for side in "AB")
    options = {"resamples": case["n_resamples"], "seed": case["seed"]}

    value, drawn_n = plain_difference(b, a, ["wrong", "right"], "accuracy", **options)
    assert value == pytest.approx(scores["difference_B_minus_A"], rel=1e-9)
    plain = inference.interval(value, drawn_n)
    assert [plain.low, plain.high] == pytest.approx(scores["ci95_percentile"], rel=1e-9)
    # What is said of a difference is Student's t, wider by what few images hide: C - 1 instead of C.
    count = len(set(case["cluster"]))
    error = np.std(drawn_n, ddof=1) * np.sqrt(count / (count - 1))
    said = inference.seeds_difference(np.array([value]), drawn_n[:, None], groups=count)
    half = t.ppf(0.975, count - 1) * error
    assert (said.low, said.high) == pytest.approx((value - half, value + half))
    assert said.p == pytest.approx(2 * t.sf(abs(value) / error, count - 1))
    assert said.p == pytest.approx(scores["p_two_sided"], abs=0.07)  # twice the share of resamples beyond 0
    for side, answers in (("A", a), ("B", b)):
        summary = inference.summarise(answers, ["wrong", "right"], **options)["accuracy"]
        assert summary.value == pytest.approx(scores[f"accuracy_{side}"], rel=1e-9)
        assert [summary.low, summary.high] == pytest.approx(scores[f"ci95_accuracy_{side}"], rel=1e-9)


def test_golden_macro_f1_difference(golden: Path) -> None:
    known = json.loads((golden / "stats_bootstrap.json").read_text())
    case, scores = known["predictions"]["macro_f1_difference"], known["scores"]["macro_f1_difference"]
    a, b = (frame(case["cluster"], case["y"], case[f"pred_{side}"]) for side in "AB")
    value, drawn_n = plain_difference(b, a, list("xyz"), "macro_f1", resamples=case["n_resamples"], seed=case["seed"])
    assert value == pytest.approx(scores["difference_B_minus_A"], rel=1e-9)
    plain = inference.interval(value, drawn_n)
    assert [plain.low, plain.high] == pytest.approx(scores["ci95_percentile"], rel=1e-9)


def test_golden_mcnemar(golden: Path) -> None:
    known = json.loads((golden / "stats_mcnemar.json").read_text())
    for table in known["scores"]["tables"]:
        b, c = table["b"], table["c"]
        right_a, right_b = [1] * b + [0] * c + [1, 0], [0] * b + [1] * c + [1, 0]
        assert inference.mcnemar(right_a, right_b) == (b, c, pytest.approx(table["p_exact_two_sided"], rel=1e-9))


def test_golden_holm(golden: Path) -> None:
    known = json.loads((golden / "stats_holm.json").read_text())
    for name, p in known["predictions"].items():
        expected = known["scores"][name]["holm"]
        assert inference.holm(p) == pytest.approx(expected["adjusted"], rel=1e-9)
        assert [q <= 0.05 for q in inference.holm(p)] == expected["reject_at_0_05"]
    assert inference.holm([]) == []


# ---------------------------------------------------------------------------------- from the definition


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    units: Floats = np.arange(14, dtype=float).reshape(7, 2)
    drawn = np.random.default_rng(5).integers(0, 7, size=(50, 7))
    for block in (1, 21, 1 << 21):
        monkeypatch.setattr(bootstrap, "_BLOCK", block)
        assert (bootstrap.resampled_sums(units, 50, 5) == units[drawn].sum(1)).all()


def test_summary_equals_the_loop_over_resamples() -> None:
    answers = noisy(1)
    answers["category"] = np.where(answers["group"] < 9, "count", "object")
    summary = inference.summarise(answers, None, resamples=40, seed=3)
    drawn = np.random.default_rng(3).integers(0, 30, size=(40, 30))
    pooled = [pd.concat([answers[answers["group"] == g] for g in row]) for row in drawn]
    macro = [f1_score(p["gold"], p["chosen"], labels=range(3), average="macro", zero_division=0) for p in pooled]
    counts = [p[p["category"] == "count"] for p in pooled]
    category = [(p["gold"] == p["chosen"]).mean() for p in counts]
    for name, values in (("macro_f1", macro), ("accuracy/count", category)):
        found = summary[name]
        assert [found.low, found.high] == pytest.approx(np.percentile(values, [2.5, 97.5]))
    assert list(summary) == ["accuracy", "macro_f1", "micro_f1", "accuracy/count", "accuracy/object"]


def test_the_replicates_of_seeds_share_their_groups() -> None:
    runs = {s: noisy(s, 0.8) for s in range(3)}
    (found,) = results_of(runs)
    groups = np.random.default_rng(0).integers(0, 30, size=(inference.RESAMPLES, 30))
    right_scg = np.stack([(f["gold"] == f["chosen"]).to_numpy().reshape(30, 3) for f in runs.values()])
    assert found.points["accuracy"] == pytest.approx(right_scg.mean((1, 2)))
    assert found.replicates["accuracy"] == pytest.approx(right_scg.mean(2)[:, groups].mean(2).T)


# ------------------------------------------------------------------------------------------ by hand


def test_a_sure_difference_has_the_smallest_p() -> None:
    gold, groups = [0] * 10, range(10)
    found = paired({0: frame(groups, gold, [0] * 10)}, {0: frame(groups, gold, [1] * 10)})
    assert (found.value, found.low, found.high, found.p) == (1, 1, 1, 2**-9)  # 10 coins on the same side, twice


def test_p_is_below_a_twentieth_where_the_interval_excludes_0() -> None:
    rng = np.random.default_rng(0)
    found = [
        inference.seeds_difference(rng.normal(0.02, 0.02, seeds), rng.normal(0.02, 0.015, (400, seeds)), groups=50)
        for seeds in (1, 2, 3, 5)
        for _ in range(50)
    ]
    told = [one.low is not None and one.high is not None and (one.low > 0 or one.high < 0) for one in found]
    assert told == [one.p is not None and one.p < 0.05 for one in found]
    assert 20 < sum(told) < 180


def test_no_difference_has_p_one() -> None:
    same = {s: noisy(s) for s in range(2)}
    found = paired(same, same)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_spread_over_seeds_by_hand() -> None:
    def spread(figures: list[float], drawn: list[list[float]]) -> bootstrap.VarianceComponents:
        return bootstrap.variance_components(np.array(figures), bootstrap.covariance(np.array(drawn)), groups=11)

    # All three move together, by 0.1 up or down: variance 0.02, of which 11 groups show 10 / 11. Between: 0.01 / 3.
    found = spread([0.5, 0.6, 0.7], [[0.4, 0.5, 0.6], [0.6, 0.7, 0.8]])
    images, seeds = 0.022, 0.01 / 3
    assert (found.images, found.seeds, found.total) == pytest.approx((images, seeds, images + seeds))
    assert found.df == pytest.approx(1 / ((seeds / found.total) ** (2 / 3) / 2 + images / found.total / 10))
    # Two seeds that move against each other share nothing: the variance between them is all, with one df.
    against = spread([0.5, 0.7], [[0.4, 0.8], [0.6, 0.6]])
    assert (against.images, against.seeds, against.df) == pytest.approx((0, 0.01, 1))
    alike = spread([0.5, 0.5], [[0.4, 0.4], [0.6, 0.6]])
    assert (alike.images, alike.seeds, alike.df) == pytest.approx((0.022, 0, 10))


def test_the_interval_over_seeds_is_a_t_interval() -> None:
    rng = np.random.default_rng(0)
    point_s = np.array([0.5, 0.52, 0.57])
    shared_n = rng.normal(0, 0.02, 20_000)  # all seeds move together
    drawn_n = bootstrap.over_seeds(point_s, point_s + shared_n[:, None], 10**9)
    total = 0.02**2 + point_s.var(ddof=1) / 3
    half = t.ppf(0.975, 2 / (point_s.var(ddof=1) / 3 / total) ** (2 / 3)) * np.sqrt(total)
    assert np.percentile(drawn_n, [2.5, 97.5]) == pytest.approx([0.53 - half, 0.53 + half], abs=0.03 * half)
    # Without any spread over images it is the t-interval of the seeds' figures alone, as scipy has it.
    alone_n = bootstrap.over_seeds(point_s, np.tile(point_s, (20_000, 1)), 10)
    bounds = ttest_1samp(point_s, 0).confidence_interval()
    assert np.percentile(alone_n, [2.5, 97.5]) == pytest.approx([bounds.low, bounds.high], abs=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_rows_are_told_apart_in_five_per_cent(seeds: int) -> None:
    """In a table of two rows, without others to learn from, whatever the share of the seeds in the variance."""
    rng, draws, groups = np.random.default_rng(seeds), 40_000, 200
    for share in (0.1, 0.5, 0.9, 0.97, 1.0):
        off_n = rng.normal(size=draws)
        between_n = share * rng.chisquare(seeds - 1, draws) / (seeds - 1)
        images_n = (1 - share) * rng.chisquare(groups - 1, draws) / (groups - 1)
        df_n = bootstrap._degrees_of_freedom(images_n, between_n, groups, seeds - 1)
        apart = 2 * t.sf(np.abs(off_n) / np.sqrt(images_n + between_n), df_n) < 0.05
        assert apart.mean() < 0.05 + 3 * 0.0011  # three standard errors of 40,000 draws


@pytest.mark.parametrize("df", [1, 2.5, 30, 1e9])
def test_the_stretch_is_the_ratio_of_quantiles(df: float) -> None:
    place_n = (np.arange(2000) + 0.5) / 2000
    exact_n = norm.ppf(place_n) if df >= 1e9 else t.ppf(place_n, df)
    assert bootstrap._stretch(2000, df) * norm.ppf(place_n) == pytest.approx(exact_n, rel=2e-4)


def test_one_group_has_no_interval() -> None:
    one = frame(["image"] * 3, [0, 1, 2], [0, 1, 1])
    summary = inference.summarise(one, list("abc"))
    assert summary["accuracy"].value == pytest.approx(2 / 3)
    assert summary["accuracy"].low is summary["accuracy"].high is None
    assert across_seeds([one, one]).low is None
    assert paired({0: one}, {0: one}).p is None


def test_one_seed_is_the_single_run_for_few_images() -> None:
    run = noisy(4)
    wider = t.ppf(0.975, 29) / norm.ppf(0.975) * np.sqrt(30 / 29)  # 30 images, see the golden differences
    for metric in inference.METRICS:
        single, plain = across_seeds([run], metric), inference.summarise(run, None)[metric]
        assert single.value == pytest.approx(plain.value)
        off = [wider * (bound - plain.value) for bound in (plain.low, plain.high) if bound is not None]
        assert [single.low, single.high] == pytest.approx([single.value + x for x in off], abs=1e-6)


def test_seeds_that_disagree_widen_the_interval() -> None:
    """The same 2/3 on average: twice the same run, or one run all right and one a third right."""
    gold, groups = [0] * 30, range(30)
    two_thirds = frame(groups, gold, [0, 0, 1] * 10)
    perfect, third = frame(groups, gold, [0] * 30), frame(groups, gold, [0, 1, 1] * 10)
    steady = across_seeds([two_thirds, two_thirds])
    shaky = across_seeds([perfect, third])
    assert steady.value == pytest.approx(shaky.value)
    assert steady.low is not None
    assert shaky.low is not None
    assert shaky.low < steady.low


def test_shuffled_rows_are_paired_by_id() -> None:
    a, b = noisy(1), noisy(2)
    shuffled = b.sample(frac=1, random_state=0)
    assert paired({0: a}, {0: shuffled}) == paired({0: a}, {0: b})


def test_macro_f1_over_the_options_or_over_the_letters_seen() -> None:
    two_of_three = frame(["i", "j"], [0, 1], [0, 1])
    assert inference.summarise(two_of_three, ["a", "b", "c"])["macro_f1"].value == pytest.approx(2 / 3)
    assert inference.summarise(two_of_three, None)["macro_f1"].value == 1


@pytest.mark.parametrize("coverage_seed", [0, 1])
def test_the_interval_covers_the_truth(coverage_seed: int) -> None:
    """Of 200 worlds with 0.7 true accuracy in groups that share their luck, about 190 intervals hold 0.7."""
    rng = np.random.default_rng(coverage_seed)
    held = 0
    for _ in range(200):
        chance = np.repeat(rng.choice([0.5, 0.9], size=60), 4)  # a group is easy or hard: 0.7 on average
        chosen = (rng.random(240) >= chance).astype(int)
        found = inference.summarise(frame(np.repeat(np.arange(60), 4), np.zeros(240, int), chosen), None, 400)
        held += found["accuracy"].low <= 0.7 <= found["accuracy"].high  # type: ignore[operator]
    assert 178 <= held <= 198


# ------------------------------------------------------------------------------------------- bad input


def test_bad_input() -> None:
    run = noisy(0)
    with pytest.raises(DataError, match="no predictions"):
        inference.summarise(run[:0], None)
    with pytest.raises(DataError, match=r"several splits .ood, test."):
        inference.summarise(run.assign(split=["test"] * 45 + ["ood"] * 45), None)
    with pytest.raises(DataError, match="example 2 has no group"):
        inference.summarise(frame(["i", "j", None], [0, 0, 0], [0, 0, 0]), None)
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        across_seeds([run], "acuracy")
    with pytest.raises(ConfigError, match="did you mean 'accuracy/object'"):
        across_seeds([run], "accuracy/objekt")
    with pytest.raises(DataError, match="'e0' is predicted twice"):
        across_seeds([pd.concat([run, run[:1]])])


def test_what_cannot_be_paired() -> None:
    run = noisy(0)
    assert shared_seeds(results_of({0: run, 1: run}, {1: run, 2: run}), "accuracy") == [1]
    for other in ({1: run}, {0: run[:60]}, {0: run.assign(gold=(run["gold"] + 1) % 3)}):
        a, b = results_of({0: run}, other)
        assert shared_seeds([a, b], "accuracy") == []
        assert difference(a, b, "accuracy") is None
    assert shared_seeds(results_of({0: run}, {0: run}), "macro_f1") == []  # not computed
