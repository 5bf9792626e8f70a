"""Ids are text, whatever type a file gives them; golds are whole numbers; the rest is refused in words."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Example
from harness.data.example_checks import faults


def example(**fields: Any) -> Example:
    told = {"id": "x", "group": "g", "image": b"", "question": "q", "claim": "c", "options": ("a", "b"), "gold": 0}
    return Example(**told | {"category": "k", "source": "s"} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["id", "group", "category", "source"])
@pytest.mark.parametrize(
    "value", [7, 7.0, np.int64(7), np.int8(7), np.uint16(7), np.float32(7), np.float64(7), "7", np.str_("7")]
)
def test_names_that_are_numbers_are_text(name: str, value: Any) -> None:
    made = example(**{name: value})
    assert getattr(made, name) == "7"
    assert type(getattr(made, name)) is str
    assert list(faults(made, golds=True)) == []


@given(value=st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_is_the_number(value: float) -> None:
    made = example(id=value).id
    assert type(made) is str
    assert type(value)(made) == value


@pytest.mark.parametrize("name", ["id", "group", "category", "source"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (float("nan"), "nan (float)"),
        (np.float32("nan"), "np.float32(nan) (float32)"),
        ([1], "[1] (list)"),
    ],
)
def test_nothing_and_nan_are_no_names(name: str, value: Any, said: str) -> None:
    assert list(faults(example(**{name: value}), golds=True)) == [f"{name} is {said}, expected text"]


@given(gold=st.integers(0, 1), kind=st.sampled_from([int, np.int64, np.int32, np.uint8]))
def test_numpys_golds_are_golds(gold: int, kind: Any) -> None:
    made = example(gold=kind(gold))
    assert type(made.gold) is int
    assert made.gold == gold
    assert made.reordered((1, 0)).gold == 1 - gold
    assert list(faults(made, golds=True)) == []


@pytest.mark.parametrize("gold", [np.bool_(True), True, 1.0, np.float64(1), "1", float("nan"), 2, -1, np.int64(2)])
def test_what_is_no_position_is_no_gold(gold: Any) -> None:
    (said,) = faults(example(gold=gold), golds=True)
    assert said.startswith("gold ")
    assert said.endswith("is not among its 2 options (0 to 1)")


@given(options=st.lists(st.text(max_size=2) | st.integers() | st.none() | st.booleans(), max_size=4))
def test_options_are_texts_each_once(options: list[Any]) -> None:
    sound = (
        len(options) >= 2
        and all(isinstance(o, str) and o.strip() for o in options)
        and len({o.strip() for o in options}) == len(options)
    )
    assert sound is not bool(list(faults(example(options=tuple(options), gold=None), golds=False)))


def test_the_names_of_one_image_are_one_group() -> None:
    forms = [unicodedata.normalize(form, "été.png") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    assert example(group=forms[0]).group == example(group=forms[1]).group
    assert [example(id=form).id for form in forms] == forms  # an id is what a file of answers repeats
