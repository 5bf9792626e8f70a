"""Control tokens in a benchmark's texts (`<image>`, `<|im_end|>`) are text: a claim can't end a turn or place an image.

A model's own processor replaces, counts and tokenizes such tokens wherever they stand. So it gets the prompt with a
character of its own for each one that a text contains. The finished row is then encoded again by the tokenizer, with
what the text said, as plain text (`encode_marked_chat` of transformers). Prompts without control tokens, almost all of
them, take the processor's way alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.api import DataError, Example

_START, _END = "\U000f0000", "\U000f0001"
"""What transformers puts around a control token that is text."""
_FIRST = 0x100000
"""The first character that stands for a control token: of a plane that is nobody's."""


Calls = list[tuple[list[str], dict[str, Any]]]
"""What a processor gave its tokenizer: texts with all their image tokens, and settings."""


class ControlTokens:
    """The control tokens of one processor: which there are, and how a text that contains them is encoded."""

    def __init__(self, processor: Any) -> None:
        self.tokenizer = processor.tokenizer
        self.tokens = sorted(_control_tokens(processor), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")
        self._number = {token: number for number, token in enumerate(self.tokens)}

    def hidden(self, text: str) -> str:
        """The text with one character, between two marks, for each control token."""
        text = text.replace(_START, "").replace(_END, "")
        return self.pattern.sub(lambda m: f"{_START}{chr(_FIRST + self._number[m[0]])}{_END}", text)

    def ids(self, prompt: str, beginning: Sequence[int] = (), end: Sequence[int] = ()) -> list[int]:
        """The tokens of a whole prompt with hidden control tokens, between those that the tokenizer itself adds."""
        from transformers.utils.chat_template_utils import encode_marked_chat

        def marked(found: re.Match[str]) -> str:
            return f"{_START}{self.tokens[ord(found[1]) - _FIRST]}{_END}"

        def torn(found: re.Match[str]) -> str:
            token = self.tokens[ord(found[1]) - _FIRST]
            return f"{token[0]}{_START}{token[1:]}"

        try:
            found = encode_marked_chat(self.tokenizer, re.sub(f"{_START}(.){_END}", marked, prompt))
        except ValueError:  # the token is also a word of the vocabulary: then its first character stands alone
            found = encode_marked_chat(self.tokenizer, re.sub(f"{_START}(.){_END}", torn, prompt))
        return [*beginning, *found, *end]

    def counts(self, ids: Sequence[int]) -> Counter[int]:
        """How often each control token is in a row."""
        return Counter(i for i in ids if i in self.numbers)

    @cached_property
    def numbers(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self.tokenizer.convert_tokens_to_ids(self.tokens))


def is_hidden(prompt: str) -> bool:
    """Whether a prompt has hidden control tokens."""
    return _START in prompt


@contextmanager
def recorded(processor: Any, wanted: bool) -> Iterator[Calls]:
    """Record the texts that the processor gives its tokenizer within the context, if that is `wanted`."""
    calls: Calls = []
    if not wanted:
        yield calls
        return
    tokenizer = processor.tokenizer

    class Recorder:
        def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
            calls.append(([text] if isinstance(text, str) else list(text), kwargs))
            return tokenizer(text, *args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    processor.tokenizer = Recorder()
    try:
        yield calls
    finally:
        processor.tokenizer = tokenizer


def restore(
    control: ControlTokens,
    batch: dict[str, Tensor],
    calls: Calls,
    examples: Sequence[Example],
    multiple: int,
) -> dict[str, Tensor]:
    """The processor's batch with what the texts said in the rows whose control tokens were hidden.

    Tensors with a value for each token get longer or shorter rows; the new tokens have the value of their neighbours.
    Raises `DataError` with the example if the tokenizer can't be told that its control tokens are text.
    """
    texts, given = next(((t, k) for t, k in calls if len(t) == len(examples)), ([], {}))
    if not texts:
        raise DataError(
            f"example {examples[0].id!r}: its batch contains a control token of the model, and the processor doesn't "
            "say what it gives its tokenizer; reword the example, or leave it out"
        )
    ids_bt, mask_bt = batch["input_ids"], batch["attention_mask"]
    token_wise = [name for name, tensor in batch.items() if tensor.shape == ids_bt.shape and name != "input_ids"]
    rows: list[dict[str, list[int]]] = []
    for row, (text, example) in enumerate(zip(texts, examples, strict=True)):
        kept = mask_bt[row].bool()
        old = {name: batch[name][row][kept].tolist() for name in ("input_ids", *token_wise)}
        if is_hidden(text):
            ids = control.ids(text, *_added(control.tokenizer, text, given))
            if control.counts(ids) != control.counts(old["input_ids"]):
                raise DataError(
                    f"example {example.id!r} contains a control token of the model, which its tokenizer can't read as "
                    "text; reword the example, or leave it out"
                )
            old = _renewed(old, ids)
        rows.append(old)
    width = max(len(row["input_ids"]) for row in rows)
    width += -width % multiple
    filler = {name: 0 for name in token_wise} | {"input_ids": control.tokenizer.pad_token_id or 0}
    left = not mask_bt[:, 0].all() or (bool(mask_bt[:, -1].all()) and control.tokenizer.padding_side == "left")
    padded = {
        name: torch.tensor([_padded(row[name], width, filler[name], left) for row in rows], dtype=batch[name].dtype)
        for name in filler
    }
    return batch | padded


def _padded(row: list[int], width: int, filler: int, left: bool) -> list[int]:
    padding = [filler] * (width - len(row))
    return [*padding, *row] if left else [*row, *padding]


def _renewed(old: dict[str, list[int]], ids: list[int]) -> dict[str, list[int]]:
    """A row with other tokens in the middle: what comes before and after them keeps its values."""
    before = old["input_ids"]
    shortest = min(len(before), len(ids))
    start = next((i for i in range(shortest) if before[i] != ids[i]), shortest)
    same = next((i for i in range(shortest - start) if before[-1 - i] != ids[-1 - i]), shortest - start)
    middle = len(ids) - start - same
    renewed = {
        name: [*values[:start], *[values[max(start - 1, 0)]] * middle, *values[len(values) - same :]]
        for name, values in old.items()
    }
    return renewed | {"input_ids": ids}


def _added(tokenizer: Any, text: str, given: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer adds before and after a text."""
    if not given.get("add_special_tokens", True):
        return [], []
    full, plain = (tokenizer(text, add_special_tokens=added)["input_ids"] for added in (True, False))
    start = next((i for i in range(len(full) - len(plain) + 1) if full[i : i + len(plain)] == plain), 0)
    return full[:start], full[start + len(plain) :]


def _control_tokens(processor: Any) -> set[str]:
    """Special tokens, added ones that the chat template writes, and the processor's own (`image_token`).

    Not the unknown token, which plain text may give anyway; not added words and runs of spaces, which are text.
    """
    tokenizer, template = processor.tokenizer, processor.chat_template
    written = template if isinstance(template, str) else "\n".join(template.values())
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    own = {value for name, value in vars(processor).items() if name.endswith("_token") and isinstance(value, str)}
    return {*tokenizer._get_control_tokens(written), *(own & added)} - {tokenizer.unk_token}
