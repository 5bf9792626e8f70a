"""Labels and pool: who keeps a gold, what of a withheld example is left, and in which order a stage sees them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harness.api import Example, Split
from harness.data.labels import TrainingExamples, divide
from harness.errors import ConfigError, DataError


def example(number: int, group: str, **changes: Any) -> Example:
    fields: dict[str, Any] = {
        "id": f"e{number}", "group": group, "image": b"", "question": "which?", "claim": "", "options": ("a", "b"),
        "gold": number % 2, "category": "none" if number % 2 else "object", "source": "test", "extra": {"noisy": True},
    }  # fmt: skip
    return Example(**fields | changes)


def splits(groups: int = 20, each: int = 2, pool: int = 0) -> dict[Split, list[Example]]:
    return {
        "train": [example(g * each + i, f"g{g}") for g in range(groups) for i in range(each)],
        "pool": [example(1000 + i, f"p{i}") for i in range(pool)],
    }


def ids(examples: Any) -> set[str]:
    return {e.id for e in examples}


def test_without_the_setting_every_training_example_keeps_its_gold() -> None:
    found = divide(splits(pool=3), None, seed=0)
    assert [e.gold for e in found.labelled] == [0, 1] * 20
    assert ids(found.pool) == {"e1000", "e1001", "e1002"}


def test_labels_are_nested_drawn_by_group_and_from_the_seed() -> None:
    data = splits()
    few, more = divide(data, 8, seed=0), divide(data, 20, seed=0)
    assert (len(few.labelled), len(few.pool)) == (8, 32)
    assert ids(few.labelled) < ids(more.labelled)
    assert set(Counter(e.group for e in few.labelled).values()) == {2}  # whole groups
    assert ids(few.labelled) | ids(few.pool) == ids(data["train"])
    assert ids(divide(data, 8, seed=1).labelled) != ids(few.labelled)
    assert ids(divide(data, 0.2, seed=0).labelled) == ids(few.labelled)  # a fifth of 40
    assert len(divide(data, 7, seed=0).labelled) == 7  # exactly, though a group is divided then


def test_nothing_that_tells_the_answer_is_left_in_the_pool() -> None:
    found = divide(splits(pool=5), 4, seed=0)
    assert {(e.gold, e.category, e.source, e.extra) for e in found.pool} == {(None, "", "", None)}
    assert {e.extra for e in found.labelled} == {None}  # it would tell which labels are wrong
    with pytest.raises(DataError, match="has no gold"):
        found.pool[0].known_gold  # noqa: B018
    moved = found.pool[0].reordered((1, 0))
    assert (moved.options, moved.gold) == (("b", "a"), None)


@pytest.mark.parametrize(("labels", "said"), [(41, "train.labels = 41: expected at most 40")])
def test_more_labels_than_examples(labels: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        divide(splits(), labels, seed=0)


def test_a_stage_sees_its_own_kind_in_epochs() -> None:
    found = divide(splits(groups=4, pool=6), None, seed=0)
    seen = [e.id for _, e in found.batch_at("labels", 0, 0, 16, 0.25)]
    assert set(seen[:8]) == set(seen[8:]) == ids(found.labelled)
    assert ids(e for _, e in found.batch_at("pool", 0, 0, 6, 0.25)) == ids(found.pool)


def test_labels_and_pool_are_mixed_evenly() -> None:
    """A quarter of each four is labelled. Both go through their epochs: 16 labels in 64, 48 of the pool."""
    found = divide(splits(groups=8, pool=24), None, seed=0)
    seen = [e for _, e in found.batch_at("all", 0, 0, 64, 0.25)]
    assert [sum(e.gold is not None for e in seen[i : i + 4]) for i in range(0, 64, 4)] == [1] * 16
    assert Counter(Counter(e.id for e in seen if e.gold is not None).values()) == {1: 16}
    assert Counter(Counter(e.id for e in seen if e.gold is None).values()) == {2: 24}
    for start, size in ((0, 10), (7, 3), (40, 24)):  # a batch is a part of the order, wherever it starts
        part = [e for _, e in found.batch_at("all", 0, start, size, 0.25)]
        assert part == seen[start : start + size]


def test_questions_about_one_image_stay_adjacent_in_a_mix() -> None:
    pictures = [bytes([g]) for g in range(12)]
    train = [example(2 * g + i, f"g{g}", image=pictures[g]) for g in range(12) for i in range(2)]
    found = TrainingExamples(labelled=train[:12], pool=[e.withheld() for e in train[12:]])
    seen = [e for _, e in found.batch_at("all", 0, 0, 24, 0.5, together=2)]
    assert all(one.group == other.group for one, other in zip(seen[::2], seen[1::2], strict=True))
    assert ids(seen) == ids(train)
