"""Responses of several tokens behind a question: sampled, and read again for a loss over their tokens.

Logits of a whole batch of responses (B, T, V) never exist at once. What is kept of a forward pass are the states that
come to the output layer at the responses' positions; the layer is applied to some of them at a time, and again in the
backward pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.api import TokenScores
from harness.errors import ConfigError, ModelError
from harness.models.encoding import PAD_TO, Batch, Encoder

if TYPE_CHECKING:
    from harness.models.scorer import OptionScorer

REPLY = "reply"
"""The key that makes a batch one of questions with responses: bool (B, L), the positions whose next token is one of a
response."""

CHUNK_BYTES = 64 * 2**20
"""Logits of one role that exist at once, in float32."""

WRITTEN = {"paligemma": 1}
"""The value of `token_type_ids` for what the model itself writes, by model type; elsewhere 0."""


def behind_questions(batch: Batch, ids_bt: Tensor, mask_bt: Tensor, pad: int, model_type: str) -> Batch:
    """The inputs of B questions, each with its response's tokens directly behind it, padded right."""
    on_bl = batch["attention_mask"].bool()
    asked_b, said_b = on_bl.sum(1), mask_bt.sum(1)
    width = -(-int((asked_b + said_b).max()) // PAD_TO) * PAD_TO
    fill = {"attention_mask": 1, "token_type_ids": WRITTEN.get(model_type, 0)}
    found: Batch = {}
    for key, value in batch.items():
        if key == "options":
            continue
        if value.shape == on_bl.shape:
            rows = []
            for row, on, ids, there in zip(value, on_bl, ids_bt, mask_bt, strict=True):
                said = ids[there]
                more = said if key == "input_ids" else torch.full_like(said, fill.get(key, 0))
                joined = torch.cat([row[on], more.to(row)])
                empty = pad if key == "input_ids" else 0
                rows.append(nn.functional.pad(joined, (0, width - len(joined)), value=empty))
            value = torch.stack(rows)
        found[key] = value
    at_l = torch.arange(width, device=on_bl.device)
    found[REPLY] = (at_l >= asked_b[:, None] - 1) & (at_l < (asked_b + said_b)[:, None] - 1)
    return found


def read(vlm: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """`states` (n, d): what comes to the output layer at the n positions before the responses' tokens, row by row.

    `last` (B, V): the logits of one position of each row, so that a wrapped model's output layer takes part in the
    pass.
    """
    inputs = {key: value for key, value in batch.items() if key != REPLY}
    with _head_input(vlm, batch[REPLY]) as caught:
        last_bv = vlm(**inputs, use_cache=False).logits[:, -1]
    return {"states": caught[0], "last": last_bv}


@contextmanager
def _head_input(vlm: nn.Module, reply_bl: Tensor | None = None) -> Iterator[list[Tensor]]:
    """Only the last position passes through the output layer; its input at the positions `reply_bl` is caught."""
    caught: list[Tensor] = []

    def narrow(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if reply_bl is not None:
            if args[0].shape[:2] != reply_bl.shape:
                raise ModelError(
                    f"{type(vlm).__name__} gives its output layer {args[0].shape[1]} of {reply_bl.shape[1]} positions; "
                    "expected all of them, to read a response: choose another model class"
                )
            caught.append(args[0][reply_bl])
        return (args[0][:, -1:], *args[1:])

    hook = vlm.get_output_embeddings().register_forward_pre_hook(narrow)  # type: ignore[operator]
    try:
        yield caught
    finally:
        hook.remove()


def output_layer(vlm: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """From states (n, d) to the logits (n, V) that the model makes of them, float32."""
    head = vlm.get_output_embeddings()  # type: ignore[operator]
    cap = getattr(vlm.config.get_text_config(), "final_logit_softcapping", None)  # type: ignore[operator,union-attr]

    def logits(states_nd: Tensor) -> Tensor:
        with torch.autocast(states_nd.device.type, torch.bfloat16, enabled=precision == "bf16"):
            found: Tensor = head(states_nd).float()
        return found if cap is None else cap * (found / cap).tanh()

    return logits


class ReadTokens:
    """The `harness.api.TokenScores` of a role: its states at the responses' positions, and its output layer."""

    def __init__(self, states_nd: Tensor, head: Callable[[Tensor], Tensor], real: Callable[[Tensor], Tensor],
                 ids_bt: Tensor, mask_bt: Tensor, tokens: Mapping[str, int], rows: int) -> None:  # fmt: skip
        """`real` cuts logits to existing tokens, `rows` is their number before that; `tokens` are their ids."""
        self.states_nd, self.head, self.real, self.ids_bt, self.mask_bt = states_nd, head, real, ids_bt, mask_bt
        self.tokens = tokens
        self.size = max(4, CHUNK_BYTES // (4 * rows))
        """How many tokens pass through the output layer at once."""

    @cached_property
    def log_p_bt(self) -> Tensor:
        def of_chunk(states_nd: Tensor, ids_n: Tensor) -> Tensor:
            return self.head(states_nd).log_softmax(-1).gather(1, ids_n[:, None])[:, 0]

        return self._chunked(of_chunk, self.ids_bt[self.mask_bt], self.size)

    def compare(self, other: TokenScores, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        assert isinstance(other, ReadTokens)
        if self.tokens is not other.tokens and self.tokens != other.tokens:
            raise ConfigError(
                "compare() of two roles with different token ids; expected one tokenizer: choose rungs that share it, "
                "or learn from the responses' text alone (log_p_bt)"
            )
        if self.ids_bt.shape != other.ids_bt.shape or bool((self.ids_bt != other.ids_bt)[self.mask_bt].any()):
            raise ConfigError("compare() of two roles that read different responses; give both sequence() the same")

        def of_chunk(own_nd: Tensor, other_nd: Tensor) -> Tensor:
            return distance(self.real(self.head(own_nd)), other.real(other.head(other_nd)))

        return self._chunked(of_chunk, other.states_nd, min(self.size, other.size))

    def _chunked(self, of_chunk: Callable[[Tensor, Tensor], Tensor], beside: Tensor, size: int) -> Tensor:
        """The values (B, T) that a function of the states and of another tensor beside them has, chunk by chunk."""
        values = []
        chunks = max(1, -(-len(beside) // size))
        # Of about one size: a product with a single row has another kernel, whose sums over the vocabulary are off by
        # 3e-6 from exact ones, where those of several rows are off by 7e-7, whatever their number.
        for states_nd, other in zip(self.states_nd.tensor_split(chunks), beside.tensor_split(chunks), strict=True):
            learns = torch.is_grad_enabled() and (states_nd.requires_grad or other.requires_grad)
            values.append(
                checkpoint(of_chunk, states_nd, other, use_reentrant=False, preserve_rng_state=False)
                if learns
                else of_chunk(states_nd, other)
            )
        found_n = torch.cat(values)
        return found_n.new_zeros(self.mask_bt.shape).masked_scatter(self.mask_bt, found_n)


# ---------------------------------------------------------------------------------------------- sampling


def generator(seed: str) -> torch.Generator:
    """A generator on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(random.Random(f"respond/{seed}").getrandbits(63))


def ends(vlm: nn.Module, encoder: Encoder) -> set[int]:
    """The tokens that end a response: the tokenizer's, and those that the model's folder names."""
    named = getattr(getattr(vlm, "generation_config", None), "eos_token_id", None)
    return {encoder.end, *(named if isinstance(named, list) else [] if named is None else [named])}


@torch.no_grad()
def sampled(
    scorer: OptionScorer, questions: Batch, draws_bt: Tensor, temperature: float, top_p: float,
    ends: Collection[int], absent: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The sampled tokens (B, T) behind questions that are padded left, and which of them exist.

    `draws_bt` are random numbers from 0 to 1, one for each token that a response may have: so a row's tokens don't
    depend on the other rows. `ends` are the tokens that end a response, `absent` output rows without a token.
    """
    mask = questions["attention_mask"]
    open_b = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
    whose_b, stops = torch.arange(len(mask), device=mask.device), torch.tensor(sorted(ends), device=mask.device)
    inputs: dict[str, Any] = {**questions, "use_cache": True}
    ids, there = [], []
    for draw_b in draws_bt.T:
        with (
            _head_input(scorer.vlm),
            torch.autocast(mask.device.type, torch.bfloat16, enabled=scorer.precision == "bf16"),
        ):
            given = scorer.vlm(**inputs)
        if given.past_key_values is None:
            raise ModelError(f"{type(scorer.vlm).__name__} returns no key-value cache, needed to write a response")
        logits_bv = given.logits[:, -1].float()
        if absent is not None:
            logits_bv[:, absent] = float("-inf")
        token_b = _picked(logits_bv, draw_b, temperature, top_p)
        ids.append(token_b.where(open_b, 0))
        there.append(open_b)
        open_b = open_b & ~torch.isin(token_b, stops)
        if not open_b.any():
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        inputs = scorer.behind(given.past_key_values, token_b[:, None], mask, whose_b)
    return torch.stack(ids, 1), torch.stack(there, 1)


def _picked(logits_bv: Tensor, draw_b: Tensor, temperature: float, top_p: float) -> Tensor:
    """The token (B,) of each row at which the cumulated probability passes its random number."""
    if temperature == 0:
        return logits_bv.argmax(-1)
    p_bv = (logits_bv.double() / temperature).softmax(-1)
    if top_p < 1:
        sorted_bv, order_bv = p_bv.sort(dim=-1, descending=True, stable=True)
        outside_bv = sorted_bv.cumsum(-1) - sorted_bv >= top_p
        p_bv = p_bv.masked_fill(torch.zeros_like(outside_bv).scatter(1, order_bv, outside_bv), 0.0)
    reached_bv = p_bv.cumsum(-1)
    wanted_b1 = draw_b[:, None] * reached_bv[:, -1:]
    # The first token whose cumulated probability is above the number: it has a probability above 0.
    return (reached_bv <= wanted_b1).sum(-1).clamp(max=logits_bv.shape[1] - 1)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens as int64 (B, T), at least one column, and bool (B, T): which of them exist."""
    width = max(1, *map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    sizes = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) < sizes[:, None]
