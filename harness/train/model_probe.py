"""Tries one rung on a few examples: do its model and processor belong together, and are its answers right and stable?

The model must accept its processor's output: one image token per image feature, only known tokens, a prompt that ends
where the answer begins and fits the context length. It must answer a question equally in two batches, and as the class
does when it is asked in the plain way: one question without padding, all logits, read behind the last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Example, Need
from harness.errors import DataError, ModelError, UserError, first_line
from harness.models import encoding, loading, quantization, scorer, sequences
from harness.models.shared_prefix import PrefixSharingScorer, truncated
from harness.models.text import prompts
from harness.planning import memory
from harness.planning.plan import Plan
from harness.record import RungCheck

LARGEST_REPEAT = {"fp32": 1e-3, "bf16": 5e-2}
"""The largest KL between two answers to one question that can be due to rounding."""

LARGEST_ERROR = 1e-4
"""The largest difference between an option's log-probability and the plain one that can be due to rounding in float32.
Narrower numbers are compared by `LARGEST_REPEAT`."""

PROBED = 4
"""How many tokens of a response are tried."""

COMPARED = 2
"""How many of the first examples are compared with a plain forward pass, besides the longest."""


class Rung:
    """A rung's model with its processor, to be tried. Every check raises `ModelError` with the rung and folder."""

    def __init__(self, name: str, plan: Plan, encoder: encoding.Encoder, device: torch.device) -> None:
        precision = plan.config.train.precision_of(name)
        self.where = f"model {name!r} ({plan.rungs[name].model})"
        storage = memory.storage(plan, name)
        self.encoder, self.device, self.largest_repeat = encoder, device, LARGEST_REPEAT[precision]
        self.exact = precision == storage == "fp32"
        self.vlm: Any = quantization.load(plan.rungs[name], storage, precision)
        self.scorer = scorer.OptionScorer(self.vlm, encoder.letters, precision).eval()
        if plan.config.cluster.offload_frozen and not any(role.changes for role in memory.roles_of(plan, name)):
            quantization.offload(self.scorer, device)
        else:
            self.scorer.to(device)
        self.positions = _positions(self.vlm.config)

    @torch.no_grad()
    def check(self, longest: Example, first: Sequence[Example]) -> RungCheck:
        """Answer the longest prompt together with the first one, and the first one again together with others."""
        pair = [longest, first[0]]
        batch = self._encoded(pair)
        images = self._image_tokens(batch, pair)
        lengths = [self._length(row, mask, e) for row, mask, e in zip(*self._rows(batch), pair, strict=True)]
        options = [self._forward(b)["options"] for b in (batch, self._encoded(first))]
        size = len(first[0].options)
        once, again = options[0][1, :size].log_softmax(-1), options[1][0, :size].log_softmax(-1)
        repeat = float((once.exp() * (once - again)).sum())
        if not abs(repeat) <= self.largest_repeat:  # also catches NaN
            raise ModelError(
                f"{self.where}: its answers to the same question in two batches differ (KL {repeat:.3g}); "
                "expected 0 up to rounding: its weights or its precision are unusable, or it has dropout "
                "that stays active"
            )
        return RungCheck(
            image_tokens=(min(images), max(images)),
            longest=max(lengths),
            positions=self.positions,
            repeat=repeat,
            reference=self._reference([longest, *first[:COMPARED]], [options[0][0], *options[1][:COMPARED]]),
        )

    def _reference(self, asked: Sequence[Example], found: Sequence[Tensor]) -> float:
        """The largest difference of an option's log-probability from the plain one. Raises `ModelError`."""
        largest = 0.0
        for example, logits_k in zip(asked, found, strict=True):
            scored_k, plain_k = logits_k[: len(example.options)].log_softmax(-1), self._plain(example)
            largest = max(largest, float((scored_k - plain_k).abs().max().nan_to_num(nan=1e4)))
            kl = float((plain_k.exp() * (plain_k - scored_k)).sum())
            if largest > LARGEST_ERROR if self.exact else not abs(kl) <= self.largest_repeat:
                expected = (
                    f"at most {LARGEST_ERROR:g} in float32"
                    if self.exact
                    else f"a KL divergence of at most {self.largest_repeat:g}, not {kl:.2g}"
                )
                raise ModelError(
                    f"{self.where}: on example {example.id!r} its option scores differ by {largest:.2g} from those of "
                    f"{type(self.vlm).__name__} asked in the plain way (all logits, behind the last token of the "
                    f"prompt); expected {expected}: it isn't scored rightly here, so choose "
                    "another model class, and report this one"
                )
        return largest

    def _plain(self, example: Example) -> Tensor:
        """The options' log-probabilities (K,), from whole forward passes on the question alone, without padding.

        What the model is to write before the last token of an option stands behind the question as a whole.
        """
        batch = {key: value.to(self.device) for key, value in self.encoder.unpadded(example).items()}
        end, options = batch["input_ids"].shape[1] - 1, batch.pop("options").shape[1]
        logs: dict[prompts.Spelling, Tensor] = {}
        for written in {tokens[:-1] for spelled in self.encoder.letters[:options] for tokens in spelled}:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.scorer.precision == "bf16"):
                logits_tv = self.vlm(**self._followed(batch, written), use_cache=False).logits[0, end:]
            logs[written] = logits_tv.float().log_softmax(-1)
        plain = [
            torch.stack([
                torch.stack([logs[tokens[:-1]][at, token] for at, token in enumerate(tokens)]).sum()
                for tokens in spelled
            ]).logsumexp(0)
            for spelled in self.encoder.letters[:options]
        ]  # fmt: skip
        return torch.stack(plain).log_softmax(-1)

    def _followed(self, batch: encoding.Batch, written: prompts.Spelling) -> encoding.Batch:
        """The inputs with more tokens behind the prompt."""
        if not written:
            return batch
        values = dict.fromkeys(
            ("token_type_ids", "mm_token_type_ids"), sequences.WRITTEN.get(self.vlm.config.model_type, 0)
        )
        values |= {"attention_mask": 1}
        more = {key: [value] * len(written) for key, value in values.items()} | {"input_ids": list(written)}
        return batch | {
            key: torch.cat([batch[key], torch.tensor([more[key]], device=self.device)], 1)
            for key in more
            if key in batch
        }

    @torch.no_grad()
    def check_images(self, examples: Sequence[Example]) -> None:
        """Answer each example alone: their images have the most unusual shapes. Raises `DataError` with the example."""
        for example in examples:
            try:
                batch = {key: value.to(self.device) for key, value in self.encoder([example]).items()}
                self._image_tokens(batch, [example])
                self._length(batch["input_ids"][0].tolist(), batch["attention_mask"][0].tolist(), example)
                self._forward(batch)
            except DataError:
                raise
            except Exception as error:  # a processor may fail in any way
                width, height = example.load_image().size
                raise DataError(
                    f"{self.where} can't use the image of example {example.id!r}, {example.image_name} of {width} x "
                    f"{height} px: {first_line(error).removeprefix(f'{self.where}: ')}; crop or scale it, or leave the "
                    "example out"
                ) from error

    @torch.no_grad()
    def answers(self, examples: Sequence[Example], needs: frozenset[Need]) -> scorer.Outputs:
        """All outputs of the rung that a method's loss may use."""
        outputs = self._forward(self._encoded(examples), needs)
        if "vocab" in outputs:
            outputs["vocab"] = self.encoder.real(outputs["vocab"])
        return outputs

    @torch.no_grad()
    def responses(self, examples: Sequence[Example]) -> tuple[list[list[int]], Tensor]:
        """The beginning of a response to each example, and the logits (n, V) of its tokens, row by row.

        A response that the model writes must be the one that it finds most probable when it reads it. Raises
        `ModelError`.
        """
        asked = [example.explained() for example in examples]
        batch = self._encoded(asked)
        pad, lengths = self.encoder.processor.tokenizer.pad_token_id or 0, batch["attention_mask"].sum(1).tolist()
        questions = truncated(batch, lengths, pad)
        draws, absent = torch.zeros(len(asked), PROBED), self.encoder.absent(loading.vocabulary_size(self.vlm.config))
        wrote, there = sequences.sampled(self.scorer, questions, draws, 0.0, 1.0, {self.encoder.end}, absent)
        logits_nv = self._read(batch, wrote, there)
        if absent is not None:
            logits_nv[:, absent.to(logits_nv.device)] = float("-inf")
        missed = float((logits_nv.max(-1).values - logits_nv.gather(1, wrote[there][:, None])[:, 0]).max())
        if not missed <= self.largest_repeat:
            raise ModelError(
                f"{self.where}: a token that it wrote as the most probable one has a logit {missed:.2g} below the "
                f"largest when the response is read; expected at most {self.largest_repeat:g}: it doesn't continue a "
                "prompt from its cache as it reads a text; choose another model class for methods with responses"
            )
        tokens = [self.encoder.response(example.response or example.claim)[:PROBED] for example in examples]
        return tokens, self._read(batch, *sequences.padded(tokens, self.device))

    def _read(self, batch: encoding.Batch, ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        pad = self.encoder.processor.tokenizer.pad_token_id or 0
        inputs = sequences.behind_questions(batch, ids_bt, mask_bt, pad, self.vlm.config.model_type)
        return sequences.output_layer(self.vlm, self.scorer.precision)(self.scorer(inputs)["states"])

    def why_alone(self, examples: Sequence[Example]) -> str:
        """Why questions about one image can't share it in training; empty: the answers are the same if they do."""
        if not self.encoder.one_token_each:
            return (
                f"{self.where}: its tokenizer has no single token for each letter, so each question about an image is "
                "passed separately in training (train.questions_per_image)"
            )
        asker = PrefixSharingScorer(self.scorer, self.encoder, self.device)
        asker(examples, len(examples))
        return f"{self.where}: {asker.note}" if asker.note else ""

    def _encoded(self, examples: Sequence[Example]) -> encoding.Batch:
        try:
            batch = self.encoder(examples)
        except UserError:
            raise
        except Exception as error:  # with another model's files a processor may fail in any way
            raise ModelError(
                f"{self.where}: its processor fails on example {examples[0].id!r}: {first_line(error)}; expected the "
                "checkpoint's own processor and tokenizer files"
            ) from error
        return {key: value.to(self.device) for key, value in batch.items()}

    def _rows(self, batch: encoding.Batch) -> tuple[list[list[int]], list[list[int]]]:
        return batch["input_ids"].tolist(), batch["attention_mask"].tolist()

    def _image_tokens(self, batch: encoding.Batch, examples: Sequence[Example]) -> list[int]:
        """The number of image placeholders in each row. Also checks that the model knows every token."""
        highest, rows = int(batch["input_ids"].max()), self.vlm.get_input_embeddings().num_embeddings
        if highest >= rows:
            raise ModelError(
                f"{self.where}: its tokenizer makes token {highest}, but the model knows {rows} tokens; expected the "
                "tokenizer that belongs to the checkpoint"
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
        """The number of tokens of a row; its last one must be the end of the prompt."""
        tokenizer = self.encoder.processor.tokenizer
        row = [token for token, on in zip(ids, mask, strict=True) if on]
        text = tokenizer(self.encoder.text(example), add_special_tokens=False)["input_ids"]
        tail = text[-3:]  # a processor may append a newline
        if not any(row[-len(tail) - k :][: len(tail)] == tail for k in range(3)):
            raise ModelError(
                f"{self.where}: the prompt of example {example.id!r} is truncated before the answer position (it ends "
                f"in {tokenizer.decode(row[-3:])!r}, expected {tokenizer.decode(tail)!r}); remove the truncation from "
                "the processor's settings"
            )
        if row[-1] == tokenizer.eos_token_id != text[-1]:
            raise ModelError(
                f"{self.where}: its tokenizer ends the prompt with {tokenizer.eos_token!r}, but the answer should "
                "follow directly; remove the token: set add_eos_token = false in tokenizer_config.json"
            )
        if self.positions is not None and len(row) > self.positions:
            raise ModelError(
                f"{self.where}: example {example.id!r} has {len(row)} tokens with its image, the model's context "
                f"length is {self.positions}; reduce images in preprocessor_config.json, or choose another model"
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
                f"{self.where}: {len(batch['input_ids'])} examples don't fit in the memory of {self.device}; choose a "
                "smaller rung, or reduce the image size in preprocessor_config.json"
            ) from None
        except Exception as error:  # with another model's inputs a class may fail in any way
            raise ModelError(
                f"{self.where}: {type(self.vlm).__name__} can't use the output of its processor "
                f"({type(self.encoder.processor).__name__}): {first_line(error)}; expected the checkpoint's own "
                "processor, and a model class that continues the question"
            ) from error
        for what, tensor in outputs.items():
            if not torch.isfinite(tensor).all():
                raise ModelError(f"{self.where}: its {what} are not finite on the first examples; damaged weights?")
        self._check_features(batch, given.get("embeddings"))
        return outputs

    def _check_features(self, batch: encoding.Batch, embeddings_btd: Tensor | None) -> None:
        """At the image tokens' positions the language model must receive the picture's features."""
        if embeddings_btd is None or loading.looks_across(self.vlm.config):
            return
        token = loading.image_token(self.vlm.config)
        seen_bt = batch["input_ids"] == token
        if token < self.vlm.get_input_embeddings().num_embeddings:
            plain_d = self.vlm.get_input_embeddings()(torch.tensor(token, device=self.device))
            without = int((embeddings_btd[seen_bt] == plain_d.to(embeddings_btd.dtype)).all(-1).sum())
            if without:
                raise ModelError(
                    f"{self.where}: {without} of {int(seen_bt.sum())} image tokens receive no feature of the "
                    "picture; expected one for each: the processor belongs to another model"
                )


def _positions(config: Any) -> int | None:
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found
