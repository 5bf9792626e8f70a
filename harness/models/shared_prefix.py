"""Questions about one image share its forward pass: the image and the common prefix of their prompts pass once.

POPE asks 6 to 18 questions about an image; shifted inference asks one with several orders of its options. The common
part of such prompts, up to the first token that differs, passes through the model once. Its key-value cache is
repeated for the questions, which continue from there. This is exact up to rounding if no token attends to later ones.

Whether a model supports this is tested on the first questions: they are also answered separately. If tokens or
answers differ (PaliGemma's image tokens attend to the question), all are answered separately, and a note says why.

Training shares too (`encoded`), if an image's questions are adjacent in the training order: gradients flow through
the common prefix. The preflight answers the first questions both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.api import Example
from harness.data.order import by_image
from harness.errors import first_line
from harness.models.encoding import Batch, Encoder
from harness.models.scorer import PREFIX, PREFIX_INDEX, OptionScorer

LARGEST_DIFFERENCE = {"fp32": 1e-4, "bf16": 0.1}
"""The largest difference of an option's log-probability that can be due to rounding."""

CHECKED = 4
"""How many questions are answered both ways."""

MOST_APPENDED = 2
"""How many tokens a processor may append to the prompt: PaliGemma's appends a newline."""


class PrefixSharingScorer:
    """Log-probabilities of the options; questions about one image share its pass if the model supports it."""

    def __init__(self, scorer: OptionScorer, encoder: Encoder, device: torch.device, share: bool = True) -> None:
        self.scorer, self.encoder, self.device = scorer, encoder, device
        self.share, self.checked = share, False
        self.note = ""
        """Why sharing was turned off."""

    @torch.no_grad()  # not inference_mode: sharded weights gathered here are used later
    def __call__(self, examples: Sequence[Example], batch_size: int) -> list[Tensor]:
        """The log-probabilities (K,) of each example, float32, on the CPU, `batch_size` at a time."""
        logs: dict[int, Tensor] = {}
        image_groups = [f for f in by_image(examples) if len(f) > 1] if self.share else []
        for part in _parts(_prefixes(self.encoder, examples, image_groups), batch_size):
            found = self._shared(examples, part)
            if found is None:
                break
            logs |= zip((row for prefix in part for row in prefix.rows), found, strict=True)
        alone = [i for i in range(len(examples)) if i not in logs]
        for start in range(0, len(alone), batch_size):
            part_ = alone[start : start + batch_size]
            logs |= zip(part_, self._one_by_one([examples[i] for i in part_]), strict=True)
        return [logs[i][: len(example.options)] for i, example in enumerate(examples)]

    def _one_by_one(self, examples: Sequence[Example]) -> list[Tensor]:
        return self._log_probabilities(self.encoder(examples))

    def _shared(self, examples: Sequence[Example], part: Sequence[SharedPrefix]) -> list[Tensor] | None:
        """The answers of the part's rows in order; None if the model turns out not to support sharing."""
        asked = [examples[row] for prefix in part for row in prefix.rows]
        try:
            logs = self._scored(examples, part)
        except Exception as error:
            if self.checked:  # sharing worked before: this is another error
                raise
            self._give_up(first_line(error))
            return None
        if not self.checked:
            if logs is None:
                self._give_up("its processor and its tokenizer make different tokens from a prompt")
                return None
            if difference := self._difference(asked, logs):
                self._give_up(difference)
                return None
            self.checked = True
        return self._one_by_one(asked) if logs is None else logs

    def _scored(self, examples: Sequence[Example], part: Sequence[SharedPrefix]) -> list[Tensor] | None:
        batch = _packed(self.encoder, examples, part)
        return None if batch is None else self._log_probabilities(batch)

    def _log_probabilities(self, batch: Batch) -> list[Tensor]:
        logits_bk = self.scorer({key: value.to(self.device) for key, value in batch.items()})["options"]
        return list(logits_bk.log_softmax(-1).cpu())

    def _difference(self, asked: Sequence[Example], logs: Sequence[Tensor]) -> str:
        """How the answers differ from those of separate questions; empty: they don't."""
        some = sorted({k * (len(asked) - 1) // (CHECKED - 1) for k in range(CHECKED)})
        largest = 0.0
        for row, single in zip(some, self._one_by_one([asked[row] for row in some]), strict=True):
            size = len(asked[row].options)
            largest = max(largest, float((logs[row][:size] - single[:size]).abs().max().nan_to_num(nan=1e4)))
        if largest <= LARGEST_DIFFERENCE[self.scorer.precision]:
            return ""
        return f"its answers then differ by {largest:.1g}: its image tokens see the question, or its positions differ"

    def _give_up(self, why: str) -> None:
        self.share = False
        self.note = (
            f"{type(self.scorer.vlm).__name__} can't share an image's prefix among its questions ({why}); each "
            "question was answered separately"
        )


@dataclass(frozen=True)
class SharedPrefix:
    """Questions with a common prefix: the examples, and each one's tokens after the prefix."""

    rows: list[int]
    tails: list[list[int]]
    length: int | None = None
    """The length of every tail, if the model needs equal lengths: options of several tokens follow directly after
    it."""


def encoded(encoder: Encoder, examples: Sequence[Example], share: bool) -> Batch:
    """Inputs of B examples. With `share` a packed batch, if some have the same image and packing is possible.

    Options of several tokens aren't shared here: they need rows of the same length.
    """
    image_groups = by_image(examples) if share and encoder.one_token_each else []
    if not 0 < len(image_groups) < len(examples):
        return encoder(examples)
    part = list(_prefixes(encoder, examples, image_groups))
    batch = _packed(encoder, examples, part)
    if batch is None:
        return encoder(examples)
    rows = torch.tensor([row for prefix in part for row in prefix.rows]).argsort()
    return {key: value if key.startswith(PREFIX) else value[rows] for key, value in batch.items()}


def _prefixes(
    encoder: Encoder, examples: Sequence[Example], image_groups: Sequence[Sequence[int]]
) -> Iterator[SharedPrefix]:
    """The common prefixes, image by image; with questions of the same length each if the model needs that."""
    for group in image_groups:
        raw = encoder.prompts([examples[i] for i in group])
        common = min(_common(raw), *(len(ids) - 1 for ids in raw))
        tails = [ids[common:] for ids in raw]
        for length in [None] if encoder.one_token_each else sorted({len(tail) for tail in tails}):
            chosen = [k for k, tail in enumerate(tails) if length in (None, len(tail))]
            yield SharedPrefix([group[k] for k in chosen], [tails[k] for k in chosen], length)


def _packed(encoder: Encoder, examples: Sequence[Example], part: Sequence[SharedPrefix]) -> Batch | None:
    """The part's questions in order, after their prefixes, as `OptionScorer` expects them.

    None if the processor and the tokenizer make different tokens from a prompt's end. This happens if prompts differ
    before their image, which is one token to the tokenizer and many to the model.
    """
    full = encoder([examples[prefix.rows[0]] for prefix in part])
    found_b = [_prefix_end(full, b, prefix.tails[0]) for b, prefix in enumerate(part)]
    lengths = [found[0] for found in found_b if found is not None]
    if len(lengths) < len(part):
        return None
    ends = [found[1] for found in found_b if found is not None]
    tails = [tail + end for prefix, end in zip(part, ends, strict=True) for tail in prefix.tails]
    pad, width = encoder.processor.tokenizer.pad_token_id or 0, max(map(len, tails))
    sizes = torch.tensor([len(examples[row].options) for prefix in part for row in prefix.rows])
    encoder.check_letters(int(sizes.max()))
    return {PREFIX + key: value for key, value in truncated(full, lengths, pad).items()} | {
        PREFIX_INDEX: torch.tensor([b for b, prefix in enumerate(part) for _ in prefix.rows]),
        "input_ids": torch.tensor([tail + [pad] * (width - len(tail)) for tail in tails]),
        "attention_mask": (torch.arange(width) < torch.tensor([len(tail) for tail in tails])[:, None]).long(),
        "options": torch.arange(int(sizes.max())) < sizes[:, None],
    }


def _parts(image_groups: Iterator[SharedPrefix], batch_size: int) -> Iterator[list[SharedPrefix]]:
    """The groups in order, `batch_size` questions of the same length at a time; a larger group is split."""
    part: list[SharedPrefix] = []
    count = 0
    for full in image_groups:
        for start in range(0, len(full.rows), batch_size):
            end = start + batch_size
            piece = SharedPrefix(full.rows[start:end], full.tails[start:end], full.length)
            if part and (count + len(piece.rows) > batch_size or part[0].length != piece.length):
                yield part
                part, count = [], 0
            part.append(piece)
            count += len(piece.rows)
    if part:
        yield part


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all rows have in common."""
    return next((at for at, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1), min(map(len, rows)))


def _prefix_end(encoded: Batch, b: int, tail: list[int]) -> tuple[int, list[int]] | None:
    """The position in row b of the processor's output where the tail begins, and what the processor appended."""
    row = encoded["input_ids"][b][encoded["attention_mask"][b].bool()].tolist()
    for more in range(MOST_APPENDED + 1):
        start = len(row) - more - len(tail)
        if start > 0 and row[start : start + len(tail)] == tail:
            return start, row[start + len(tail) :]
    return None


def truncated(encoded: Batch, lengths: Sequence[int], pad: int) -> Batch:
    """The first `lengths[b]` tokens of each row, padded left; image inputs are unchanged."""
    width, mask = max(lengths), encoded["attention_mask"].bool()
    piece: Batch = {}
    for key, value in encoded.items():
        if key == "options":
            continue
        if value.shape == mask.shape:
            rows = [row[on][:n] for row, on, n in zip(value, mask, lengths, strict=True)]
            fill = pad if key == "input_ids" else 0
            value = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=fill) for row in rows])
        piece[key] = value
    return piece
