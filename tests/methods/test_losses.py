"""Each divergence against a float64 reference written from its formula, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import ConfigError
from methods.losses import (
    ABSENT,
    DIVERGENCES,
    Divergence,
    cross_entropy,
    disagreement,
    divergence,
    feature_distance,
    relation_distance,
)

LABELS = torch.tensor([0, 2])
ALL = torch.ones(2, 4, dtype=torch.bool)
TEACHER = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.5, 0.0, 3.0, 1.0]], dtype=torch.float64)
STUDENT = torch.tensor([[0.0, 1.0, 0.5, 0.0], [1.0, -2.0, 0.0, 0.3]], dtype=torch.float64)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


def reference(name: str, z_t: np.ndarray, z_s: np.ndarray, gold: int, t: float, **w: float) -> float:
    """t^2 D of one example, from the definitions."""
    p, q = softmax(z_t / t), softmax(z_s / t)
    if name == "forward_kl":
        d = kl(p, q)
    elif name == "reverse_kl":
        d = kl(q, p)
    elif name == "jsd":
        b = w.get("beta", 0.5)
        r = b * p + (1 - b) * q
        d = b * kl(p, r) + (1 - b) * kl(q, r)
    elif name == "skew_kl":
        a = w.get("alpha", 0.1)
        d = kl(p, a * p + (1 - a) * q)
    elif name == "logit_std":
        d = kl(softmax((z_t - z_t.mean()) / z_t.std() / t), softmax((z_s - z_s.mean()) / z_s.std() / t))
    else:
        binary = kl(np.array([p[gold], 1 - p[gold]]), np.array([q[gold], 1 - q[gold]]))
        others = kl(np.delete(p, gold) / (1 - p[gold]), np.delete(q, gold) / (1 - q[gold]))
        d = w.get("tckd", 1.0) * binary + w.get("nckd", 1.0) * others
    return t * t * d


WEIGHTS: list[tuple[Divergence, dict[str, float]]] = [
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("jsd", {}),
    ("jsd", {"beta": 0.2}),
    ("skew_kl", {"alpha": 0.3}),
    ("dkd", {"tckd": 1.0, "nckd": 8.0}),
    ("logit_std", {}),
]
PER_EXAMPLE = [name for name in DIVERGENCES if name != "dist"]


@pytest.mark.parametrize(("name", "weights"), WEIGHTS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_is_its_formula(name: Divergence, weights: dict[str, float], temperature: float) -> None:
    got = divergence(name, TEACHER, STUDENT, LABELS, ALL, temperature=temperature, **weights)
    want = [
        reference(name, z_t, z_s, gold, temperature, **weights)
        for z_t, z_s, gold in zip(TEACHER.numpy(), STUDENT.numpy(), LABELS.tolist(), strict=True)
    ]
    assert got.shape == (2,)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
    single = divergence(name, TEACHER.float(), STUDENT.float(), LABELS, ALL, temperature=temperature, **weights)
    np.testing.assert_allclose(single.numpy(), want, rtol=2e-5)


def test_forward_kl_by_hand() -> None:
    """p_T = (3/4, 1/4), p_S = (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308 nats."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    got = divergence("forward_kl", teacher, student, torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool))
    assert got.item() == pytest.approx(0.130812, abs=1e-6)


logits = st.lists(st.lists(st.floats(-20, 20), min_size=4, max_size=4), min_size=2, max_size=2)


@pytest.mark.parametrize("name", DIVERGENCES)
@settings(max_examples=50, deadline=None)
@given(p=logits, q=logits)
def test_never_negative_and_zero_at_equality(name: Divergence, p: list[list[float]], q: list[list[float]]) -> None:
    z_p, z_q = torch.tensor(p), torch.tensor(q)
    assert divergence(name, z_p, z_q, LABELS, ALL).min() >= -1e-5
    torch.testing.assert_close(divergence(name, z_p, z_p, LABELS, ALL), torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name != "logit_std"])
def test_temperature_scales_by_its_square(name: Divergence) -> None:
    """t times the logits at temperature t are the logits at 1, so only the factor t^2 is left."""
    one = divergence(name, TEACHER, STUDENT, LABELS, ALL)
    three = divergence(name, 3 * TEACHER, 3 * STUDENT, LABELS, ALL, temperature=3.0)
    torch.testing.assert_close(three, 9 * one)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradient_reaches_the_student_only(name: Divergence) -> None:
    teacher, student = TEACHER.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    divergence(name, teacher, student, LABELS, ALL).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert (student.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("name", "weights"), [*WEIGHTS, ("dist", {"within": 2.0, "across": 0.5})])
def test_gradient_is_that_of_the_value(name: Divergence, weights: dict[str, float]) -> None:
    def value(student: torch.Tensor) -> torch.Tensor:
        return divergence(name, TEACHER, student, LABELS, ALL, temperature=2.0, **weights)

    assert torch.autograd.gradcheck(value, STUDENT.clone().requires_grad_())


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_stable_at_large_logits(name: Divergence, dtype: torch.dtype) -> None:
    """Opposite certainties, +-50: the value is large but finite, and so is its gradient."""
    teacher = torch.tensor([[50.0, -50, -50, -50], [-50, 50, 50, -50]], dtype=dtype)
    student = (-teacher).requires_grad_()
    value = divergence(name, teacher, student, LABELS, ALL)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    if name in ("forward_kl", "dkd"):  # the others are flat out there: p_S, or the mixture, is certain
        assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", DIVERGENCES)
def test_absent_options_add_nothing(name: Divergence) -> None:
    """Two options padded to four, whatever logit the pads bear: value and gradient of two options."""
    labels, two = torch.tensor([0, 1]), torch.ones(2, 2, dtype=torch.bool)
    narrow = STUDENT[:, :2].clone().requires_grad_()
    value = divergence(name, TEACHER[:, :2], narrow, labels, two)
    value.sum().backward()
    mask = torch.tensor([[True, True, False, False]] * 2)
    for pad in (ABSENT, 7.0):
        wide = torch.cat([STUDENT[:, :2], torch.full((2, 2), pad).double()], 1).requires_grad_()
        target = torch.cat([TEACHER[:, :2], torch.full((2, 2), -pad).double()], 1)
        padded = divergence(name, target, wide, labels, mask)
        padded.sum().backward()
        assert torch.equal(padded, value)
        assert wide.grad is not None
        assert narrow.grad is not None
        assert torch.equal(wide.grad[:, 2:], torch.zeros(2, 2).double())
        torch.testing.assert_close(wide.grad[:, :2], narrow.grad)


def test_skew_kl_without_skew_is_kl() -> None:
    want = divergence("forward_kl", TEACHER, STUDENT, LABELS, ALL)
    assert torch.equal(divergence("skew_kl", TEACHER, STUDENT, LABELS, ALL, alpha=0.0), want)
    near = divergence("skew_kl", TEACHER, STUDENT, LABELS, ALL, alpha=1e-7)
    torch.testing.assert_close(near, want, rtol=1e-5, atol=0)


def test_jsd_at_its_ends() -> None:
    """JSD / beta -> KL(p_T || p_S) as beta -> 0; JSD / (1 - beta) -> KL(p_S || p_T) as beta -> 1."""
    low = divergence("jsd", TEACHER, STUDENT, LABELS, ALL, beta=1e-6) / 1e-6
    high = divergence("jsd", TEACHER, STUDENT, LABELS, ALL, beta=1 - 1e-6) / 1e-6
    forward = divergence("forward_kl", TEACHER, STUDENT, LABELS, ALL)
    reverse = divergence("reverse_kl", TEACHER, STUDENT, LABELS, ALL)
    torch.testing.assert_close(low, forward, rtol=1e-4, atol=0)
    torch.testing.assert_close(high, reverse, rtol=1e-4, atol=0)


def test_jsd_is_symmetric_at_one_half() -> None:
    there = divergence("jsd", TEACHER, STUDENT, LABELS, ALL)
    back = divergence("jsd", STUDENT, TEACHER, LABELS, ALL)
    torch.testing.assert_close(there, back)


def test_dkd_with_the_right_weights_is_kl() -> None:
    """KL = TCKD + (1 - p_T(gold)) NCKD (arXiv 2203.08679, eq. 7)."""
    for i in range(2):
        row = slice(i, i + 1)
        teacher, student, gold = TEACHER[row], STUDENT[row], LABELS[row]
        rest = 1 - teacher.softmax(-1)[0, int(gold)].item()
        got = divergence("dkd", teacher, student, gold, ALL[row], tckd=1.0, nckd=rest)
        torch.testing.assert_close(got, divergence("forward_kl", teacher, student, gold, ALL[row]))


def test_logit_std_ignores_shift_and_scale() -> None:
    """(0, 0, 3) has mean 1 and standard deviation sqrt(2): its z are (-1, -1, 2) / sqrt(2), those of (5, 5, 50) too."""
    three = torch.ones(1, 3, dtype=torch.bool)
    teacher, student = torch.tensor([[0.0, 0.0, 3.0]]).double(), torch.tensor([[5.0, 5.0, 50.0]]).double()
    same = divergence("logit_std", teacher, student, LABELS[:1], three)
    torch.testing.assert_close(same, torch.zeros(1).double(), atol=1e-12, rtol=0)
    z = torch.tensor([[-1.0, -1.0, 2.0]]).double() / 2**0.5
    got = divergence("logit_std", teacher, teacher.flip(-1), LABELS[:1], three, temperature=2.0)
    want = divergence("forward_kl", z, z.flip(-1), LABELS[:1], three, temperature=2.0)
    torch.testing.assert_close(got, want)


def test_logit_std_of_two_options_has_no_gradient() -> None:
    """Their z are always 1 and -1."""
    student = torch.tensor([[1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    two = torch.ones(1, 2, dtype=torch.bool)
    value = divergence("logit_std", -student.detach(), student, LABELS[:1], two)
    value.sum().backward()
    assert value.item() == pytest.approx(2 * (1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(2))))  # KL of p and 1 - p
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros(1, 2).double(), atol=1e-12, rtol=0)


def dist_reference(z_t: list[np.ndarray], z_s: list[np.ndarray], t: float, within: float, across: float) -> list[float]:
    """t^2 DIST of each example, from the definition; rows may have different numbers of options."""
    p, q = ([softmax(z / t) for z in rows] for rows in (z_t, z_s))
    over_options = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    over_examples = []
    for option in range(max(len(row) for row in p)):
        those = [i for i, row in enumerate(p) if len(row) > option]
        if len(those) > 1:
            over_examples.append(1 - np.corrcoef([p[i][option] for i in those], [q[i][option] for i in those])[0, 1])
    return [t * t * (within * d + across * float(np.mean(over_examples))) for d in over_options]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("within", "across"), [(1.0, 1.0), (2.0, 0.0), (0.0, 0.5)])
def test_dist_is_its_formula(temperature: float, within: float, across: float) -> None:
    """Five examples with two to five options; only one has the fifth."""
    rng = np.random.default_rng(0)
    sizes = (4, 3, 5, 2, 4)
    z_t, z_s = ([rng.normal(0, 2, k) for k in sizes] for _ in range(2))
    padded_t, padded_s = (torch.full((5, 5), pad, dtype=torch.float64) for pad in (ABSENT, 7.0))
    for i, k in enumerate(sizes):
        padded_t[i, :k], padded_s[i, :k] = torch.tensor(z_t[i]), torch.tensor(z_s[i])
    mask = torch.arange(5) < torch.tensor(sizes)[:, None]
    want = dist_reference(z_t, z_s, temperature, within, across)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        got = divergence(
            "dist", padded_t.to(dtype), padded_s.to(dtype), torch.zeros(5, dtype=torch.long), mask,
            temperature=temperature, within=within, across=across,
        )  # fmt: skip
        np.testing.assert_allclose(got.numpy(), want, rtol=tolerance, atol=tolerance)


def test_dist_by_hand() -> None:
    """p_T = (0.7, 0.2, 0.1) and (0.2, 0.7, 0.1); the student has them exchanged.

    Within an example: deviations from 1/3 of (11, -4, -7) and (-4, 11, -7) thirtieths: r = (-44 - 44 + 49) / 186.
    Over the examples: options 1 and 2 have r = -1; the third is constant for both, which counts as equal.
    """
    p = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]).double()
    teacher, student, three = p.log(), p.flip(0).log(), torch.ones(2, 3, dtype=torch.bool)
    got = divergence("dist", teacher, student, LABELS, three, within=1.0, across=0.0)
    torch.testing.assert_close(got, torch.full((2,), 1 + 39 / 186).double())
    got = divergence("dist", teacher, student, LABELS, three, within=0.0, across=1.0)
    torch.testing.assert_close(got, torch.full((2,), (2 + 2 + 0) / 3).double())
    alone = divergence("dist", teacher[:1], student[:1], LABELS[:1], three[:1], within=0.0, across=1.0)
    assert alone.item() == 0  # one example has no relation over examples


def test_cross_entropy_by_hand() -> None:
    """p = (1/4, 3/4), and an absent third option: -ln(1/4) = 1.3863, -ln(3/4) = 0.2877."""
    logits = torch.tensor([[1.0, 3.0, 99.0]] * 2).log().half().requires_grad_()
    options = torch.tensor([[True, True, False]] * 2)
    loss = cross_entropy(logits, torch.tensor([0, 1]), options)
    torch.testing.assert_close(loss, torch.tensor([1.3863, 0.2877]), atol=1e-3, rtol=0)
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, 2], torch.zeros(2).half())


def test_cross_entropy_with_a_smoothed_label_by_hand() -> None:
    """p = (1/4, 3/4) and an absent third option, e = 0.2: q = (0.9, 0.1), not a third of 0.2 for each.

    0.9 ln 4 + 0.1 ln(4/3) = 1.2764.
    """
    logits = torch.tensor([[1.0, 3.0, 99.0]]).log().requires_grad_()
    options = torch.tensor([[True, True, False]])
    loss = cross_entropy(logits, torch.tensor([0]), options, smoothing=0.2)
    torch.testing.assert_close(loss, torch.tensor([1.2764]), atol=1e-4, rtol=0)
    loss.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.25 - 0.9, 0.75 - 0.1, 0.0]]))  # p - q


def test_unknown_divergence_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"'jds'.*did you mean 'jsd'"):
        divergence("jds", TEACHER, STUDENT, LABELS, ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_over_a_large_vocabulary_it_is_still_its_formula(name: Divergence) -> None:
    """5,000 tokens in float32: sums of many small parts stay within 1e-4 of float64."""
    rng = np.random.default_rng(0)
    z_t, z_s = rng.normal(0, 4, (2, 2, 5000))
    mask = torch.ones(2, 5000, dtype=torch.bool)
    got = divergence(name, torch.tensor(z_t).float(), torch.tensor(z_s).float(), LABELS, mask, temperature=2.0)
    want = [reference(name, z_t[i], z_s[i], int(LABELS[i]), 2.0) for i in range(2)]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4)


def test_cross_entropy_is_its_formula() -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        got = cross_entropy(STUDENT.to(dtype), LABELS, ALL)
        want = [-np.log(softmax(z)[gold]) for z, gold in zip(STUDENT.numpy(), LABELS.tolist(), strict=True)]
        np.testing.assert_allclose(got.numpy(), want, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cross_entropy_is_stable_at_large_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([[-50.0, 50, 50, 50]], dtype=dtype).requires_grad_()
    loss = cross_entropy(logits, torch.tensor([0]), ALL[:1])
    torch.testing.assert_close(loss, torch.tensor([100 + np.log(3)], dtype=torch.float32))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# ------------------------------------------------------------------------------- views and features


def test_disagreement_is_the_symmetric_jsd_and_moves_both() -> None:
    one, other = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    got = disagreement(one, other, ALL)
    want = [reference("jsd", z_t, z_s, 0, 1.0) for z_t, z_s in zip(TEACHER.numpy(), STUDENT.numpy(), strict=True)]
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-12)
    torch.testing.assert_close(got, disagreement(other, one, ALL))
    got.sum().backward()
    assert one.grad is not None
    assert one.grad.any()
    assert other.grad is not None
    assert other.grad.any()
    torch.testing.assert_close(disagreement(one, one, ALL), torch.zeros(2).double(), atol=1e-15, rtol=0)
    sure = torch.tensor([[50.0, -50.0]], dtype=torch.float16)
    got = disagreement(sure, -sure, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(got, torch.tensor([np.log(2)], dtype=torch.float32))


def test_feature_distance_is_one_minus_the_cosine() -> None:
    """(3, 4) and (4, 3): cos = 24/25. Opposite: 2. The length doesn't count, and the teacher stays."""
    teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64).requires_grad_()
    student = torch.tensor([[40.0, 30.0], [-7.0, 0.0]], dtype=torch.float64).requires_grad_()
    got = feature_distance(teacher, student)
    torch.testing.assert_close(got, torch.tensor([1 / 25, 2.0]).double())
    got.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.isfinite().all()
    torch.testing.assert_close(feature_distance(teacher, 5 * teacher), torch.zeros(2).double(), atol=1e-12, rtol=0)


def gram(tokens: np.ndarray, grid: int) -> np.ndarray:
    """Cosines among the means of the fields of a square of tokens, from the definition."""
    side = round(len(tokens) ** 0.5)
    step = side // grid
    square = tokens.reshape(side, side, -1)
    fields = [
        square[i * step : (i + 1) * step, j * step : (j + 1) * step].mean((0, 1))
        for i in range(grid)
        for j in range(grid)
    ]
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in fields] for a in fields])


@pytest.mark.parametrize("sides", [(2, 2), (4, 2), (4, 8)])
def test_relation_distance_is_its_formula(sides: tuple[int, int]) -> None:
    """Teacher and student of other widths and grids, compared on 2 x 2 fields."""
    rng = np.random.default_rng(0)
    teacher, student = (rng.normal(size=(3, side * side, width)) for side, width in zip(sides, (5, 4), strict=True))
    got = relation_distance(torch.tensor(teacher), torch.tensor(student), 2)
    want = [np.square(gram(s, 2) - gram(t, 2)).sum() for t, s in zip(teacher, student, strict=True)]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
    single = relation_distance(torch.tensor(teacher).float(), torch.tensor(student).float(), 2)
    np.testing.assert_allclose(single.numpy(), want, rtol=1e-5)


def test_relation_distance_by_hand() -> None:
    """Four tokens in a row of fields: all alike against one that is turned by 90 degrees: 2 x 3 cosines of 1 to 0."""
    teacher = torch.tensor([[[1.0, 0.0]] * 4], dtype=torch.float64).requires_grad_()
    student = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]]]).double()
    student.requires_grad_()
    got = relation_distance(teacher, student, 2)
    torch.testing.assert_close(got, torch.tensor([6.0]).double())
    got.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.any()
    # Neither lengths nor a common turn of the space are relations between tokens.
    turned = 7 * teacher.flip(-1)
    torch.testing.assert_close(relation_distance(teacher, turned, 2), torch.zeros(1).double())


def test_tokens_that_fill_no_square_are_averaged_in_a_row() -> None:
    """8 tokens on 2 x 2 fields: pairs of neighbours."""
    eight = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    four = eight.unflatten(1, (4, 2)).mean(2)
    torch.testing.assert_close(relation_distance(eight, four, 2), torch.zeros(1).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_and_relations_are_stable_in_half_precision(dtype: torch.dtype) -> None:
    """Values of +-50, and a token that is all zero."""
    student = 50 * torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0)).sign().to(dtype)
    student[0, 3] = 0
    student.requires_grad_()
    value = relation_distance(-student, student.flip(1), 4) + feature_distance(-student[:, 3], student[:, 3])
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
