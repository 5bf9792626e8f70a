"""MSI: the mapping of letters back to options, and independence from the order of the options."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.api import ConfigError, Example, Shifts
from harness.config import Debias, EvaluateConfig, Fusion, parse
from harness.evaluation.shifts import Asking, content_free, fuse_views, shifted_orders
from methods.finetune import Finetune
from methods.hkd4vlm.method import HKD4VLM

ABCD = ("red", "blue", "green", "grey")
NO = "No hallucination"


def example(options: tuple[str, ...], gold: int = 0) -> Example:
    return Example("e1", "i1", b"", "which?", "a claim", options, gold, "object", "test")


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def test_cyclic_shift_moves_option_k_to_letter_k_plus_s() -> None:
    orders = shifted_orders(ABCD, "cyclic", 0, "")
    assert len(orders) == 4
    for shift, order in enumerate(orders):
        assert all(order[(k + shift) % 4] == k for k in range(4))


def test_no_hallucination_keeps_its_letter() -> None:
    assert shifted_orders((NO, "red", "blue"), "cyclic", 0, "") == ((0, 1, 2), (0, 2, 1))
    assert len(shifted_orders((NO, "red", "blue"), "cyclic", 0, "", "all")) == 3


def test_kinds_of_shifts() -> None:
    assert shifted_orders(ABCD, "none", 0, "") == ((0, 1, 2, 3),)
    assert len(set(shifted_orders(ABCD, "all", 0, ""))) == math.factorial(4)
    drawn = shifted_orders(ABCD, "random", 5, "e1")
    assert len(set(drawn)) == 5
    assert drawn == shifted_orders(ABCD, "random", 5, "e1")
    assert drawn != shifted_orders(ABCD, "random", 5, "e2")
    assert len(shifted_orders(("left", "right"), "random", 5, "e1")) == 2  # there are no more
    with pytest.raises(ConfigError, match="5040 forward passes"):
        shifted_orders(tuple("abcdefg"), "all", 0, "")


def test_fuse_by_hand() -> None:
    """View 1 asks (red, blue), view 2 (blue, red): red has 0.8 and 0.4, blue 0.2 and 0.6."""
    orders, scores = ((0, 1), (1, 0)), np.log([[0.8, 0.2], [0.6, 0.4]])
    np.testing.assert_allclose(np.exp(fuse_views(orders, scores, "prob", "none")), [0.6, 0.4])
    red, blue = math.sqrt(0.8 * 0.4), math.sqrt(0.2 * 0.6)
    by_log = np.exp(fuse_views(orders, scores, "logprob", "none"))
    np.testing.assert_allclose(by_log, [red / (red + blue), blue / (red + blue)])
    by_vote = np.exp(fuse_views(orders, scores, "vote", "none"))  # a vote each: the mean decides
    np.testing.assert_allclose(by_vote, [(1 + 0.6) / 3, (1 + 0.4) / 3])


def test_vote_counts_heads_before_confidence() -> None:
    """Blue wins two of three views narrowly; red's mean is larger."""
    orders = ((0, 1), (0, 1), (0, 1))
    scores = np.log([[0.99, 0.01], [0.49, 0.51], [0.49, 0.51]])
    assert fuse_views(orders, scores, "vote", "none").argmax() == 1
    assert fuse_views(orders, scores, "prob", "none").argmax() == 0


def test_one_view_is_the_score_itself() -> None:
    scores = np.log([[0.1, 0.2, 0.7]])
    np.testing.assert_allclose(fuse_views(((0, 1, 2),), scores, "prob", "prior"), scores[0])


@pytest.mark.parametrize("head", [False, True])
def test_prior_removes_an_additive_letter_bias(head: bool) -> None:
    """Logits = content + letter: divided by the letters' prior, only the content is left (of the moved)."""
    options = (NO, *ABCD[1:]) if head else ABCD
    content, letter = np.array([1.0, 0.3, -0.5, 0.9]), np.array([0.0, 2.0, -1.0, 0.4])
    orders = shifted_orders(options, "cyclic", 0, "")
    scores = log_softmax(np.array([content[list(order)] + letter for order in orders]))
    got = fuse_views(orders, scores, "prob", "prior")[int(head) :]
    np.testing.assert_allclose(got - got.max(), content[int(head) :] - content[int(head) :].max(), atol=1e-9)


words = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=2, max_size=5, unique=True)


def biased_logits(seed: int, view: Example) -> np.ndarray:
    """A scorer that knows the content, leans to some letters, and lets the two interact."""
    rng = np.random.default_rng(seed)
    letter, mixed = rng.normal(0, 2, 8), rng.normal(0, 1, 8)
    content = np.array([zlib.crc32(f"{seed}{o}".encode()) % 9973 / 2500 for o in view.options])
    k = len(view.options)
    return log_softmax(content + letter[:k] + content * mixed[:k])


@pytest.mark.parametrize("aggregate", ["prob", "logprob", "vote"])
@pytest.mark.parametrize("debias", ["none", "prior", "calibrate"])
@pytest.mark.parametrize("shifts", ["all", "cyclic"])
@settings(max_examples=25, deadline=None)
@given(options=words, head=st.booleans(), seed=st.integers(0, 999), data=st.data())
def test_answer_does_not_depend_on_the_order(
    shifts: Shifts,
    debias: Debias,
    aggregate: Fusion,
    options: list[str],
    head: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    """With all permutations any reordering, with the cyclic ones any rotation, leaves the answer alone."""
    asking = Asking(Finetune(), EvaluateConfig(shifts=shifts, aggregate=aggregate, debias=debias))
    if shifts == "all":
        moved = data.draw(st.permutations(options))
    else:
        turn = data.draw(st.integers(0, len(options) - 1))
        moved = options[turn:] + options[:turn]
    lead = (NO,) if head else ()
    scores = []
    for asked in (example((*lead, *options)), example((*lead, *moved))):
        views = asking.views(asked)
        fused = asking.fuse(asked, np.array([biased_logits(seed, view) for view in views]))
        scores.append(dict(zip(asked.options, fused, strict=True)))
    first, second = scores
    assume(len({round(v, 12) for v in first.values()}) == len(first))  # an exact tie goes to the first letter
    assert max(first, key=lambda o: first[o]) == max(second, key=lambda o: second[o])
    assert first == second  # to the last bit


def test_without_shifts_the_biased_scorer_does_depend_on_it() -> None:
    """The test above can fail: without shifts the same scorer changes its answer with the order."""
    asking, changed = Asking(HKD4VLM(msi=False), EvaluateConfig()), 0
    for seed in range(20):
        answers = set()
        for options in (ABCD, ABCD[::-1], ABCD[2:] + ABCD[:2]):
            asked = example(options)
            fused = asking.fuse(asked, np.array([biased_logits(seed, view) for view in asking.views(asked)]))
            answers.add(options[int(fused.argmax())])
        changed += len(answers) > 1
    assert changed >= 5


def test_what_is_asked_has_no_gold() -> None:
    for view in Asking(Finetune(), EvaluateConfig(shifts="all")).views(example((NO, "red", "blue", "green"), gold=2)):
        assert view.options[0] == NO
        assert (view.gold, view.category, view.source, view.extra) == (None, "", "", None)


@dataclass(frozen=True)
class Twice(Finetune):
    """A method with views of its own: it believes the second one only."""

    def views(self, example: Example) -> list[Example]:
        return [example, replace(example, question="really?")]

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        return np.asarray(scores_vk[1])


def test_shifts_go_around_the_methods_own_views() -> None:
    """Two rotations of two views each; the mean of the second views' 0.8 and 0.4 for `red`, 0.6."""
    asked = example(("red", "blue"))
    asking = Asking(Twice(), EvaluateConfig(shifts="cyclic"))
    views = asking.views(asked)
    assert [(v.options, v.question) for v in views] == [
        (("red", "blue"), "which?"), (("red", "blue"), "really?"),
        (("blue", "red"), "which?"), (("blue", "red"), "really?"),
    ]  # fmt: skip
    scores = np.log([[0.5, 0.5], [0.8, 0.2], [0.5, 0.5], [0.6, 0.4]])
    np.testing.assert_allclose(np.exp(asking.fuse(asked, scores)), [0.6, 0.4])


def test_the_setting_overrules_the_method() -> None:
    asked = example(ABCD)
    counts = {
        (method.name, shifts): len(Asking(method, EvaluateConfig(shifts=shifts)).views(asked))
        for method in (Finetune(), HKD4VLM())
        for shifts in ("method", "none", "cyclic")
    }
    assert counts == {
        ("finetune", "method"): 1, ("finetune", "none"): 1, ("finetune", "cyclic"): 4,
        ("hkd4vlm", "method"): 4, ("hkd4vlm", "none"): 1, ("hkd4vlm", "cyclic"): 4,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="debias = 'prior' needs several shifts"):
        parse(EvaluateConfig, {"shifts": "none", "debias": "prior"}, "evaluate")


def test_calibration_divides_by_the_content_free_answer() -> None:
    """A letter that is liked 3 : 1 without any content: (0.6, 0.4) becomes 0.6 / 0.75 : 0.4 / 0.25 = 1 : 2."""
    got = fuse_views(((0, 1),), np.log([[0.6, 0.4]]), "prob", "calibrate", np.log([0.75, 0.25]))
    np.testing.assert_allclose(np.exp(got), [1 / 3, 2 / 3])


def test_the_content_free_input_has_nothing_to_judge() -> None:
    picture = lambda: Image.new("RGB", (30, 20), "red")  # noqa: E731
    asked = replace(example((NO, "red", "blue"), gold=2), image=picture, context="Some context.")
    calibrated = Asking(Finetune(), EvaluateConfig(shifts="cyclic", debias="calibrate"))
    *shifted, free = calibrated.views(asked)
    assert len(shifted) == 2
    assert (free.claim, free.context, free.options) == ("N/A", "N/A", (NO, "N/A", "N/A"))
    assert free.question == asked.question
    assert free.load_image().size == (30, 20)
    assert free.load_image().getcolors() == [(600, (128, 128, 128))]
    assert calibrated.views(asked.reordered((0, 2, 1)))[-1] == free  # whatever the order of the others
    assert content_free(replace(asked, claim="", context="")).prompt().count("N/A") == 2
    verdicts = replace(asked, options=("True", "False"))
    assert content_free(verdicts).options == ("True", "False")  # they are answers, not content
    assert Asking(Finetune(), EvaluateConfig(debias="calibrate")).views(asked) == [asked.withheld()]  # one view only


def test_verdicts_keep_their_letters() -> None:
    verdicts = ("True", "False", "Partially True", "Not Verifiable")
    assert shifted_orders(verdicts, "cyclic", 2, "id") == ((0, 1, 2, 3),)
    assert len(shifted_orders(verdicts, "cyclic", 2, "id", "all")) == 4
    # One option that is no verdict makes it a list of contents.
    assert len(shifted_orders((*verdicts[:3], "a red ring"), "cyclic", 2, "id")) == 4
