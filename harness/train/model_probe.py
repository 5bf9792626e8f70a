"""One rung tried on a few examples: do its model and its processor belong together, and do its answers hold?

It must take what its processor makes: an image token for each feature of the picture, tokens that it knows, a prompt
that ends where the answer begins and fits its positions; and it must answer a question alike in two batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Example, Need
from harness.errors import ModelError, UserError, first_line
from harness.models import encoding, loading, quantization, scorer
from harness.models.shared_prefix import PrefixSharingScorer
from harness.planning import memory
from harness.planning.plan import Plan
from harness.record import RungCheck

LARGEST_REPEAT = {"fp32": 1e-3, "bf16": 5e-2}
"""The largest KL between two answers to one question that rounding explains."""


class Rung:
    """A rung's model with its processor, to be tried. Everything raises `ModelError`, naming rung and folder."""

    def __init__(self, name: str, plan: Plan, encoder: encoding.Encoder, device: torch.device) -> None:
        precision = plan.config.train.precision_of(name)
        self.where = f"model {name!r} ({plan.rungs[name].model})"
        self.encoder, self.device, self.largest_repeat = encoder, device, LARGEST_REPEAT[precision]
        self.vlm: Any = quantization.load(plan.rungs[name], memory.storage(plan, name), precision)
        self.scorer = scorer.OptionScorer(self.vlm, encoder.letters, precision).eval()
        if plan.config.cluster.offload_frozen and True not in memory.learns(plan, name):
            quantization.offload(self.scorer, device)
        else:
            self.scorer.to(device)
        self.positions = _positions(self.vlm.config)

    @torch.no_grad()
    def check(self, longest: Example, first: Sequence[Example]) -> RungCheck:
        """Ask the longest prompt beside the first one, and the first one again beside others."""
        pair = [longest, first[0]]
        batch = self._encoded(pair)
        images = self._image_tokens(batch, pair)
        lengths = [self._length(row, mask, e) for row, mask, e in zip(*self._rows(batch), pair, strict=True)]
        options = [self._forward(b)["options"] for b in (batch, self._encoded(first))]
        size = len(first[0].options)
        once, again = options[0][1, :size].log_softmax(-1), options[1][0, :size].log_softmax(-1)
        repeat = float((once.exp() * (once - again)).sum())
        if not abs(repeat) <= self.largest_repeat:  # NaN is none of these
            raise ModelError(
                f"{self.where}: asked the same question in two batches, it answers differently (KL {repeat:.3g}); "
                "expected 0 but for rounding: its weights or its precision are not fit for use, or it has dropout "
                "that stays on"
            )
        return RungCheck(
            image_tokens=(min(images), max(images)),
            longest=max(lengths),
            positions=self.positions,
            repeat=repeat,
        )

    @torch.no_grad()
    def answers(self, examples: Sequence[Example], needs: frozenset[Need]) -> scorer.Outputs:
        """What a method's loss may ask of the rung."""
        outputs = self._forward(self._encoded(examples), needs)
        if "vocab" in outputs:
            outputs["vocab"] = self.encoder.real(outputs["vocab"])
        return outputs

    def why_alone(self, examples: Sequence[Example]) -> str:
        """Why questions of one image can't share it in training; empty: the model answers alike where they do."""
        if not self.encoder.one_token_each:
            return (
                f"{self.where}: its tokenizer has no single token for each letter, so each question of an image passes "
                "by itself in training (train.questions_per_image)"
            )
        asker = PrefixSharingScorer(self.scorer, self.encoder, self.device)
        asker(examples, len(examples))
        return f"{self.where}: {asker.note}" if asker.note else ""

    def _encoded(self, examples: Sequence[Example]) -> encoding.Batch:
        try:
            batch = self.encoder(examples)
        except UserError:
            raise
        except Exception as error:  # a processor may do anything with files that aren't its own
            raise ModelError(
                f"{self.where}: its processor fails on example {examples[0].id!r}: {first_line(error)}; expected the "
                "checkpoint's own processor and tokenizer files"
            ) from error
        return {key: value.to(self.device) for key, value in batch.items()}

    def _rows(self, batch: encoding.Batch) -> tuple[list[list[int]], list[list[int]]]:
        return batch["input_ids"].tolist(), batch["attention_mask"].tolist()

    def _image_tokens(self, batch: encoding.Batch, examples: Sequence[Example]) -> list[int]:
        """How many places for image features each row has; and every token must be one that the model knows."""
        highest, rows = int(batch["input_ids"].max()), self.vlm.get_input_embeddings().num_embeddings
        if highest >= rows:
            raise ModelError(
                f"{self.where}: its tokenizer makes token {highest}, the model knows {rows}; expected the tokenizer "
                "that belongs to the checkpoint"
            )
        seen_bt = batch["input_ids"] == loading.image_token(self.vlm.config)
        counts: list[int] = seen_bt.sum(1).tolist()
        if 0 in counts:
            raise ModelError(
                f"{self.where}: the prompt of example {examples[counts.index(0)].id!r} has no image token "
                f"({loading.image_token(self.vlm.config)}); expected a chat template that places the image, and the "
                "processor that belongs to the checkpoint"
            )
        return counts

    def _length(self, ids: list[int], mask: list[int], example: Example) -> int:
        """The tokens of a row, whose last one must be where the prompt ends."""
        tokenizer = self.encoder.processor.tokenizer
        row = [token for token, on in zip(ids, mask, strict=True) if on]
        text = tokenizer(self.encoder.text(example), add_special_tokens=False)["input_ids"]
        tail = text[-3:]  # a processor may add a line's end of its own
        if not any(row[-len(tail) - k :][: len(tail)] == tail for k in range(3)):
            raise ModelError(
                f"{self.where}: the prompt of example {example.id!r} is cut off before the answer's place (it ends in "
                f"{tokenizer.decode(row[-3:])!r}, expected {tokenizer.decode(tail)!r}); take the truncation out of "
                "the processor's settings"
            )
        if row[-1] == tokenizer.eos_token_id != text[-1]:
            raise ModelError(
                f"{self.where}: its tokenizer ends the prompt with {tokenizer.eos_token!r}, where the answer should "
                "follow; expected none there: set add_eos_token = false in tokenizer_config.json"
            )
        if self.positions is not None and len(row) > self.positions:
            raise ModelError(
                f"{self.where}: example {example.id!r} has {len(row)} tokens with its image, the model was made for "
                f"{self.positions}; make images smaller in preprocessor_config.json, or take another model"
            )
        return len(row)

    def _forward(self, batch: encoding.Batch, needs: frozenset[Need] = frozenset()) -> scorer.Outputs:
        given: dict[str, Tensor] = {}

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if "inputs_embeds" in kwargs:
                given.setdefault("embeddings", kwargs["inputs_embeds"])

        try:
            hook = self.vlm.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
            try:
                outputs: scorer.Outputs = self.scorer(batch, needs)
            finally:
                hook.remove()
        except UserError:
            raise
        except torch.OutOfMemoryError:
            raise ModelError(
                f"{self.where}: {len(batch['input_ids'])} examples don't fit the memory of {self.device}; take a "
                "smaller rung, or make images smaller in preprocessor_config.json"
            ) from None
        except Exception as error:  # what a class does with inputs that aren't its own is not to be foreseen
            raise ModelError(
                f"{self.where}: {type(self.vlm).__name__} can't take what its processor "
                f"({type(self.encoder.processor).__name__}) makes: {first_line(error)}; expected the checkpoint's own "
                "processor, and a class that goes on from the question"
            ) from error
        for what, tensor in outputs.items():
            if not torch.isfinite(tensor).all():
                raise ModelError(f"{self.where}: its {what} are not finite on the first examples; damaged weights?")
        self._check_features(batch, given.get("embeddings"))
        return outputs

    def _check_features(self, batch: encoding.Batch, embeddings_btd: Tensor | None) -> None:
        """Where image tokens stand the language model must be given the picture's features."""
        if embeddings_btd is None:
            return
        token = loading.image_token(self.vlm.config)
        seen_bt = batch["input_ids"] == token
        if token < self.vlm.get_input_embeddings().num_embeddings:
            plain_d = self.vlm.get_input_embeddings()(torch.tensor(token, device=self.device))
            without = int((embeddings_btd[seen_bt] == plain_d.to(embeddings_btd.dtype)).all(-1).sum())
            if without:
                raise ModelError(
                    f"{self.where}: {without} of {int(seen_bt.sum())} image tokens are given no feature of the "
                    "picture; expected one for each: the processor is another model's"
                )


def _positions(config: Any) -> int | None:
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found
