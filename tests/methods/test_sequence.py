"""Methods of responses: their losses against float64 references from the definition, on a real step."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from harness.api import Method, Responses
from harness.errors import TrainingError
from harness.models.sequences import ReadTokens
from harness.testing import Broken, Case
from harness.train.step import StepView
from helpers.steps import LADDER
from methods.losses import token_jsd
from methods.sequence.gkd import GKD
from methods.sequence.rationale import Rationale
from methods.sequence.seq_kd import SeqKD


def case(method: str, **settings: object) -> Case:
    return Case(method, settings, plugins=[f"methods.sequence.{method}"])


def plain_logits(step: StepView, role: str, responses: Responses, row: int) -> tuple[Tensor, Tensor]:
    """Logits (T, V) in float64 and tokens (T,) of one response, from one whole forward pass on it alone."""
    model = step._models[role]
    batch = model.encoder.unpadded(step.examples[row].explained())  # type: ignore[attr-defined]
    ids = responses.ids_bt[row][responses.mask_bt[row]]
    asked = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], ids[None]], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    del batch["options"]
    with torch.no_grad():
        logits = model.scorer.vlm(**batch).logits[0].double()  # type: ignore[attr-defined]
    return logits[asked - 1 : -1], ids


def cross_entropies(step: StepView, role: str, responses: Responses) -> list[float]:
    """The mean of -log p over each response's tokens."""
    found = []
    for row in range(len(step.examples)):
        logits_tv, ids = plain_logits(step, role, responses, row)
        logs = [float(z.log_softmax(0)[token]) for z, token in zip(logits_tv, ids, strict=True)]
        found.append(-sum(logs) / max(len(logs), 1))
    return found


def test_rationale_is_the_letter_and_the_explanation() -> None:
    one = case("rationale", response_weight=2.0)
    tried = one.live[0].step(one.examples)
    step = tried.micro
    expected = cross_entropies(step, "student", step.references("student"))
    assert expected[0] == 0.0  # an example without a reference explanation
    torch.testing.assert_close(
        tried.terms["student", "explain"].detach(), 2 * torch.tensor(expected), atol=1e-4, rtol=1e-5
    )
    letter_b = -step.forward("student").log_softmax(-1).gather(1, step.labels_b[:, None])[:, 0]
    torch.testing.assert_close(tried.terms["student", "ce"], letter_b)
    assert case("rationale", response_weight=0.0).live[0].step(one.examples).micro.forward_passes == {
        ("student", "first")
    }


def test_seq_kd_learns_what_the_teacher_writes() -> None:
    one = case("seq_kd", max_tokens=6)
    live = one.live[1]
    tried = live.step(one.examples)
    written = tried.micro.respond("teacher", temperature=0.0, max_tokens=6)
    expected = cross_entropies(tried.micro, "student", written)
    torch.testing.assert_close(
        tried.terms["student", "response"].detach(), torch.tensor(expected), atol=1e-4, rtol=1e-5
    )
    for row in (0, 3):  # the most probable token each time
        logits_tv, ids = plain_logits(tried.micro, "teacher", written, row)
        assert logits_tv.argmax(-1).tolist() == ids.tolist()
    cost = live.roles["teacher"].cost
    assert (cost.forwards, cost.generated) == (0, int(written.mask_bt.sum()))  # alpha = 0: no letter is asked for
    live.step(one.examples)  # a frozen teacher writes about an example once
    assert live.roles["teacher"].cost.generated == cost.generated
    assert live.roles["teacher"].cost.recalled == len(one.examples)


def test_gkd_is_the_divergence_of_each_token() -> None:
    """beta KL(p_T || m) + (1 - beta) KL(p_S || m), m = beta p_T + (1 - beta) p_S: written out with probabilities."""
    beta = 0.3
    one = case("gkd", beta=beta, max_tokens=5)
    tried = one.live[1].step(one.examples)
    step = tried.micro
    ((responses, _),) = step._read["student"]
    own, references = step.respond("student", max_tokens=5), step.references("student")
    assert any(torch.equal(*cut(responses, references, row)) for row in range(8))
    assert any(not torch.equal(*cut(responses, references, row)) for row in range(8))
    assert own.ids_bt.shape[1] <= 5
    expected = []
    for row in range(len(step.examples)):
        p, q = (plain_logits(step, role, responses, row)[0].softmax(-1) for role in ("teacher", "student"))
        m = beta * p + (1 - beta) * q
        by_token = (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum(-1)
        expected.append(float(by_token.mean()))
    torch.testing.assert_close(tried.terms["student", "gkd"].detach(), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_gkd_draws_whose_response_it_takes_from_the_seed() -> None:
    """Another run takes other examples' own responses; the draws follow the position, not the division of the batch."""
    one = case("gkd", max_tokens=2)
    live = one.live[1]
    whole, half = (live.step(some).micro.draws_b for some in (one.examples, one.examples[4:]))
    assert torch.equal(whole[4:], half)
    live.plan = replace(live.plan, config=live.plan.config.model_copy(update={"seed": 1}))
    other = live.step(one.examples).micro.draws_b
    assert not torch.equal(other, whole)
    assert all(0 <= draw < 1 for draw in (*whole.tolist(), *other.tolist()))


def cut(one: Responses, other: Responses, row: int) -> tuple[Tensor, Tensor]:
    return one.ids_bt[row][one.mask_bt[row]], other.ids_bt[row][other.mask_bt[row]]


def test_token_jsd_by_hand() -> None:
    """p_T = (0.5, 0.5), p_S = (1, 0): m = (0.75, 0.25)."""
    teacher, student = torch.zeros(1, 2), torch.tensor([[0.0, -1e4]])
    kl_t = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert token_jsd(student, teacher, 0.5).item() == pytest.approx(0.5 * kl_t + 0.5 * math.log(1 / 0.75))


@pytest.mark.parametrize(("number", "furthest"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_chunks_change_nothing(number: torch.dtype, furthest: float) -> None:
    """Values and gradients, of states and output layers, are those of all tokens at once."""
    torch.manual_seed(0)
    states = [torch.randn(9, 8, dtype=number, requires_grad=True) for _ in range(2)]
    heads = [torch.nn.Linear(8, 50, dtype=number) for _ in range(2)]
    mask_bt = torch.tensor([[True] * 5, [True, True, False, False, False], [True, True, False, False, False]])
    ids_bt = torch.randint(50, (3, 5)) * mask_bt
    found = []
    for size in (9, 4, 1):
        one, other = (
            ReadTokens(s, h, lambda z: z, ids_bt, mask_bt, {}, 50) for s, h in zip(states, heads, strict=True)
        )
        one.size = size
        values = one.compare(other, partial(token_jsd, beta=0.3)), one.log_p_bt
        assert not any(value[~mask_bt].any() for value in values)
        of = [states[0], *heads[0].parameters()]
        found.append((*values, *torch.autograd.grad((values[0] - values[1]).sum() / 9, of)))
    plain = heads[0](states[0]).log_softmax(-1).gather(1, ids_bt[mask_bt][:, None])[:, 0]
    torch.testing.assert_close(found[0][1][mask_bt], plain, atol=furthest, rtol=furthest)
    for chunked in found[1:]:
        for one, other in zip(found[0], chunked, strict=True):
            torch.testing.assert_close(other, one, atol=furthest, rtol=furthest)


def test_chunks_change_nothing_of_a_real_model() -> None:
    """Relative to the length of the gradient of all weights, in float32."""
    one = case("rationale")
    step = one.live[0].step(one.examples).micro
    role, references = one.live[0].roles["student"], step.references("student")
    tokens = [ids[there].tolist() for ids, there in zip(references.ids_bt, references.mask_bt, strict=True)]
    found = []
    for size in (10**6, 4):  # whole, and chunks of three and four tokens
        read = role.read(step._batch, tokens)
        read.size = size
        by_weight = torch.autograd.grad(read.log_p_bt.sum(), list(role.scorer.vlm.parameters()), allow_unused=True)
        found.append(torch.cat([gradient.flatten() for gradient in by_weight if gradient is not None]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-6


def test_what_is_not_declared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case("rationale")
    step = one.live[0].step(one.examples).micro
    with pytest.raises(TrainingError, match="temperature 0 or more"):
        step.respond("student", temperature=-1)
    monkeypatch.setattr(Rationale, "needs", lambda self, stage: frozenset())
    with pytest.raises(Broken, match="add 'responses' to the result of needs"):
        one.live[0].step(one.examples)


@pytest.mark.parametrize("method", [SeqKD(), GKD(), Rationale()], ids=lambda m: m.name)
def test_stages(method: Method) -> None:
    laid_out = {stage.name: stage for stage in method.stages(LADDER, "S")}
    learners = {name: {r for r, role in s.roles.items() if role.trainable} for name, s in laid_out.items()}
    whole = {"teacher": {"teacher"}, "distil": {"student"}}
    assert learners == ({"tune": {"student"}} if method.name == "rationale" else whole)
    assert all("responses" in method.needs(name) for name in laid_out)
