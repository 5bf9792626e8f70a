"""`compare`: who is meant, what is computed, how it is said. Eight questions, one an image, two categories."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError, DataError, StoreError
from harness.leaderboard import leaderboard
from harness.leaderboard.compare import Disagreement, compare, sides
from harness.report.comparison import to_json, to_text
from harness.report.text import to_text as leaderboard_text
from harness.store import Store
from helpers.common import Cli
from helpers.runs import DATA, add


@pytest.fixture
def store(store: Store) -> Store:
    """Two seeds of two methods, and one of another setting."""
    for seed, (tuned, distilled) in enumerate([(4, 8), (5, 8)]):
        add(store, "finetune", tuned, seed)
        add(store, "offline_kd", distilled, seed)
    add(store, "offline_kd", 2, run_id="jsd-0", settings={"divergence": "jsd", "temperature": 4})
    return store


def test_rows_over_their_seeds(store: Store) -> None:
    found = compare(store, *sides(store, "offline_kd", "finetune@S"))
    assert (found.a.name, found.b.name) == ("offline_kd@S", "finetune@S")
    assert found.a.runs == {0: "offline_kd-S-0", 1: "offline_kd-S-1"}
    assert found.values == (1, 9 / 16)
    assert found.difference.value == (4 / 8 + 3 / 8) / 2
    assert (found.difference.seeds, found.difference.groups, found.examples) == ((0, 1), 8, 8)
    assert found.mcnemar is None
    # "object" are the first four, right on both sides; "count" the last: 4 of 4 against 0 and 1 of 4.
    by_name = {c.name: c for c in found.categories}
    assert by_name["object"].difference.value == 0
    assert by_name["count"].difference.value == (4 / 4 + 3 / 4) / 2
    assert by_name["count"].p_holm == min(1, 2 * by_name["count"].difference.p)  # type: ignore[operator]
    assert (found.errors.inherited.value, found.errors.introduced.value) == (0, 0)
    assert found.errors.fixed.value == pytest.approx((4 + 3) / 16)
    assert found.agreement.value == pytest.approx(9 / 16)
    # e5 to e7 part both seeds, e4 the first alone: it comes last. Gold is k mod 2, a wrong choice the other one.
    assert [p.id for p in found.parted] == ["e5", "e6", "e7", "e4"]
    assert found.parted[0] == Disagreement("e5", "i5", "count", 1, (1, 1), (0, 0))
    text = to_text(found)
    assert found.power is not None
    assert found.power.difference == found.difference.value
    assert "8 images and 2 seeds can detect a difference of" in text
    assert "toy, test split: 8 examples about 8 images, 2 seeds" in text
    assert "accuracy: A 100.0, B 56.2" in text
    assert "  e4  count  gold no  A 2 of 2 right  B 1 of 2 right" in text
    assert max(map(len, text.splitlines())) <= 110


def test_one_run_each(store: Store) -> None:
    found = compare(store, *sides(store, "jsd", "finetune-S-1"), examples=2)
    assert found.difference.value == 2 / 8 - 5 / 8
    assert found.mcnemar is not None
    assert (found.mcnemar.only_a, found.mcnemar.only_b, found.mcnemar.p) == (0, 3, 2 * 0.5**3)
    assert ([p.id for p in found.parted], found.parted_in_all) == (["e2", "e3"], 3)
    text = to_text(found)
    assert "McNemar, exact: only A right 0, only B right 3, p 0.25" in text
    assert "2 of 3 examples on which one is right and the other is not:" in text
    assert "  e2  object  gold no  A yes  B no" in text
    assert '"p": 0.25' in to_json(found)


def test_a_setting_names_a_row(store: Store) -> None:
    a, b = sides(store, "offline_kd divergence=jsd", "offline_kd")
    assert a.name == "offline_kd@S divergence=jsd temperature=4"
    assert a.runs == {0: "jsd-0"}
    assert b.name == "offline_kd@S"  # the row with just these settings, none
    assert compare(store, a, b).difference.seeds == (0,)


def test_who_is_not_meant(store: Store) -> None:
    with pytest.raises(ConfigError, match="no run or row 'ofline_kd' in the store; did you mean 'offline_kd'"):
        sides(store, "ofline_kd", "finetune")
    with pytest.raises(ConfigError, match="no run or row 'finetune@L'"):
        sides(store, "finetune@L", "offline_kd")
    with pytest.raises(StoreError, match="could be any of 2"):
        sides(store, "finetune-S", "offline_kd")
    add(store, "finetune", 3, student="L", run_id="large")
    with pytest.raises(
        ConfigError, match="'finetune' could be any of: finetune@L; finetune@S; add what distinguishes them"
    ):
        sides(store, "finetune", "offline_kd")
    add(store, "finetune", status="failed", run_id="broken")
    with pytest.raises(ConfigError, match="run broken is failed: expected a finished run"):
        sides(store, "broken", "offline_kd")
    with pytest.raises(ConfigError, match="metric 'toy:f1' has no paired difference"):
        compare(store, *sides(store, "jsd", "large"), metric="toy:f1")
    with pytest.raises(StoreError, match="run jsd-0 has no predictions on split 'ood': choose another with --split"):
        compare(store, *sides(store, "jsd", "large"), split="ood")


def test_only_what_saw_the_same_data_is_compared(store: Store) -> None:
    other = DATA.model_copy(update={"fingerprint": "b" * 64})
    for method in ("finetune", "offline_kd"):
        add(store, method, 8, run_id=f"other-{method}", benchmark="toy2", data=other)
    with pytest.raises(ConfigError, match="are both on toy, toy2: choose with --benchmark"):
        sides(store, "offline_kd", "finetune")
    assert sides(store, "offline_kd", "finetune", benchmark="toy2")[0].runs == {0: "other-offline_kd"}
    assert sides(store, "other-off", "finetune")[1].runs == {0: "other-finetune"}
    with pytest.raises(ConfigError, match=r"'other-off' .on toy2. and 'jsd' .on toy. have no data in common"):
        sides(store, "other-off", "jsd")
    add(store, "finetune", 8, 5, run_id="five-a", settings={"x": 1})
    add(store, "finetune", 8, 6, run_id="six-a", settings={"x": 1})
    with pytest.raises(DataError, match="no seed in common"):
        compare(store, *sides(store, "finetune x=1", "offline_kd", benchmark="toy"))


def test_the_verb(store: Store, cli: Cli) -> None:
    said = cli("compare", "offline_kd", "finetune", "--store", store.root)
    assert (said.code, said.err) == (0, "")
    assert "A  offline_kd@S\nB  finetune@S\n" in said.out
    document = cli("compare", "jsd", "finetune", "--store", store.root, "--json", "--examples", 0).json
    assert document["difference"]["value"] == 2 / 8 - 4 / 8
    assert (document["parted"], document["parted_in_all"]) == ([], 2)
    assert document["errors"]["inherited"]["value"] == 0.5
    said = cli("compare", "offline", "nobody", "--store", store.root)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("error: ")


def test_the_ranking_has_places(store: Store, tmp_path: Path) -> None:
    """8 of 8 and 2 of 8 differ on six images (p 1/32, by Holm 3/32): too few to tell. All eight (1/128) are enough."""
    assert {(row.rank_low, row.rank_high, row.tier) for row in leaderboard.table(store)} == {(1, 3, (1,))}
    two = Store(tmp_path / "two")
    add(two, "finetune", 0)
    add(two, "offline_kd", 8)
    best, worst = leaderboard.table(two)
    assert (best.method, best.rank_low, best.rank_high, best.tier) == ("offline_kd", 1, 1, (1,))
    assert (worst.method, worst.rank_low, worst.rank_high, worst.tier) == ("finetune", 2, 2, (2,))
    assert "rows that share a tier are not significantly different" in leaderboard_text([best, worst])
