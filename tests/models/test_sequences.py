"""Responses are sampled and read as the plain model would: one question, no padding, no cache."""

from __future__ import annotations

import torch

from benchmarks.scenes.factuality import ScenesFactuality
from harness.models import encoding, ladders, loading
from harness.models.scorer import OptionScorer
from harness.models.sequences import _picked, behind_questions, generator, padded, sampled
from harness.models.shared_prefix import truncated


def test_a_token_is_where_the_cumulated_probability_passes_its_number() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.2, 0.05]]).log()

    def picked(draw: float, temperature: float = 1.0, top_p: float = 1.0) -> int:
        return int(_picked(logits, torch.tensor([draw]), temperature, top_p))

    assert [picked(draw) for draw in (0.0, 0.49, 0.51, 0.74, 0.76, 0.94, 0.96)] == [0, 0, 1, 1, 2, 2, 3]
    assert [picked(draw, top_p=0.7) for draw in (0.66, 0.67, 0.999)] == [0, 1, 1]  # 0.5 and 0.25 remain
    assert picked(0.999, top_p=0.5) == 0
    assert picked(0.999, temperature=0.0) == 0
    assert [picked(draw, temperature=0.5) for draw in (0.7, 0.72)] == [0, 1]  # squares: 0.25 of 0.355
    assert torch.equal(*(torch.rand(3, generator=generator("0/tune/7/student")) for _ in range(2)))


def test_a_row_is_written_and_read_as_if_it_were_alone() -> None:
    rung = next(r for r in ladders.find("tiny").rungs if r.name == "S")
    encoder = encoding.load_encoder(rung)
    scorer = OptionScorer(loading.load_vlm(rung), encoder.letters).eval()
    examples = [example.explained() for example in ScenesFactuality(train=3).load("train")]
    draws = torch.stack([torch.rand(5, generator=generator(example.id), dtype=torch.float64) for example in examples])

    def write(rows: list[int]) -> list[list[int]]:
        batch = encoder([examples[row] for row in rows])
        left = truncated(batch, batch["attention_mask"].sum(1).tolist(), 0)
        ids, there = sampled(scorer, left, draws[rows], 1.0, 0.95, {encoder.end}, None)
        return [row[on].tolist() for row, on in zip(ids, there, strict=True)]

    together = write([0, 1, 2])
    assert together == [write([row])[0] for row in range(3)]
    assert all(1 <= len(row) <= 5 for row in together)
    read = scorer(behind_questions(encoder(examples), *padded(together, torch.device("cpu")), 0, "internvl"))
    start = 0
    for example, tokens in zip(examples, together, strict=True):
        plain = {k: v for k, v in encoder.unpadded(example).items() if k != "options"}
        asked = plain["input_ids"].shape[1]
        plain["input_ids"] = torch.cat([plain["input_ids"], torch.tensor([tokens])], 1)
        plain["attention_mask"] = torch.ones_like(plain["input_ids"])
        with torch.no_grad():
            logits = scorer.vlm(**plain).logits[0, asked - 1 : -1]
            found = scorer.vlm.get_output_embeddings()(read["states"][start : start + len(tokens)])  # type: ignore[operator]
        torch.testing.assert_close(found, logits, atol=2e-4, rtol=1e-4)
        start += len(tokens)


def test_explanations_are_single_tokens_of_the_ladder() -> None:
    encoder = encoding.load_encoder(ladders.find("tiny").rungs[-1])
    for example in ScenesFactuality(train=40).load("train"):
        assert example.response is not None
        words = encoder.processor.tokenizer.convert_ids_to_tokens(encoder.response(example.response))
        assert not any(word.startswith("##") or word == "<unk>" for word in words)
        assert words[-1] == "<end>"
