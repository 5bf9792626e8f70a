"""Vision-language models as scorers of options: any folder that `AutoModelForImageTextToText` and
`AutoProcessor` load. One forward pass gives the logits of the option letters at the answer position.

The output layer is applied only there: the logits of whole sequences are never computed. Its input is cut to that
position, because several classes ignore the argument `logits_to_keep` that others have for this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Need
from harness.errors import ModelError
from harness.models import sequences
from harness.models.encoding import Batch
from harness.models.loading import image_token, looks_across
from harness.models.text.prompts import Spelling

MASKED_LOGIT = -1e4
"""The logit of an option that an example doesn't have: probability 0, finite log."""

PREFIX_INDEX, PREFIX = "parents", "beginning/"
"""The keys that make a batch a packed one: the prefix that each row continues, and the marker before the names of the
prefixes' own model inputs."""

Outputs = dict[str, Tensor]
"""`options` (B, K), and the other outputs that were needed: `hidden` (B, d), `vision` (B, N, d), `vocab` (B, V),
`layers` (B, L, d)."""


class OptionScorer(nn.Module):
    """A VLM that returns the option logits (B, K), float32, at the answer position, and other outputs if needed."""

    def __init__(self, vlm: nn.Module, letters: Sequence[Sequence[Spelling]], precision: str = "fp32") -> None:
        super().__init__()
        self.vlm, self.precision, self.spelled = vlm, precision, [list(spelled) for spelled in letters]
        width = max(len(spelled) for spelled in letters)
        first = [[tokens[0] for tokens in spelled] for spelled in letters]
        padded = torch.tensor([[*ids, *[-1] * (width - len(ids))] for ids in first])
        self.register_buffer("letters", padded, persistent=False)

    def forward(self, batch: Batch, needs: Collection[Need] = ()) -> Outputs:
        """The outputs for each row of `batch`: input_ids, attention_mask, options, and the model's other inputs.

        Row b of a packed batch (padded right) continues row `parents[b]` of its prefixes (padded left), which
        pass through the model once for all rows; see `harness.models.shared_prefix`. If options have several tokens,
        its rows must have the same length. Of questions with responses behind them it returns what
        `harness.models.sequences.read` gives.
        """
        if sequences.REPLY in batch:
            with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                return sequences.read(self.vlm, batch)
        own_bt, options_bk = batch["attention_mask"], batch["options"]
        tree = _tree(self.spelled[: options_bk.shape[1]])
        # The last attended token of each row: its own last one with right padding, the common last with left padding.
        last_b = own_bt.shape[1] - 1 - own_bt.flip(1).argmax(1)
        narrow_precision = torch.autocast(own_bt.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        outputs: Outputs = {}
        prefix_index_b: Tensor | None = None
        if PREFIX_INDEX in batch:
            prefix_index_b = batch[PREFIX_INDEX]
            with narrow_precision:
                inputs, outputs = self._prefixed(batch, needs)
        else:
            inputs = {key: value for key, value in batch.items() if key != "options"} | {"use_cache": tree is not None}
        wanted = [need for need in needs if need not in outputs]
        with (
            _layer_states(self.vlm, last_b if "layers" in wanted else None) as states,
            _caught(self.vlm, wanted, last_b) as caught,
            narrow_precision,
        ):
            given = self.vlm(**inputs)
        logits_bv = _of_one_position(self.vlm, given.logits, own_bt).float()
        if tree is None:
            logits_bk = self._letters(logits_bv, options_bk)
        else:
            with narrow_precision:
                logits_brlv = self._continued(given.past_key_values, inputs["attention_mask"], tree, prefix_index_b)
            logits_bk = tree.scores(logits_bv, logits_brlv)
        outputs["options"] = logits_bk.masked_fill(~options_bk, MASKED_LOGIT)
        if "hidden" in wanted:
            outputs["hidden"] = caught["hidden"][:, 0].float()
        if "layers" in wanted:  # after the last layer comes a norm, which belongs to it
            outputs["layers"] = torch.stack([*(_at(s, last_b) for s in states[:-1]), caught["hidden"][:, 0]], 1).float()
        if "vision" in wanted:
            outputs["vision"] = _visual_tokens(self.vlm, caught["embeddings"], batch["input_ids"]).float()
        if "vocab" in wanted:
            outputs["vocab"] = logits_bv
        return outputs

    def _prefixed(self, batch: Batch, needs: Collection[Need]) -> tuple[dict[str, Any], Outputs]:
        """The model inputs of a packed batch after the pass of its prefixes; and the outputs needed from that pass."""
        prefix, prefix_index_b = prefix_inputs(batch), batch[PREFIX_INDEX]
        last_b = torch.full_like(prefix["attention_mask"][:, 0], -1)
        with _caught(self.vlm, [need for need in needs if need == "vision"], last_b) as caught:
            cache = self.vlm(**prefix, use_cache=True).past_key_values
        if cache is None:
            raise ModelError(f"{type(self.vlm).__name__} returns no key-value cache of the prompt")
        _select_rows(cache, prefix_index_b)
        mask = torch.cat([prefix["attention_mask"][prefix_index_b], batch["attention_mask"]], 1)
        seen: Outputs = {}
        if "vision" in needs:
            seen["vision"] = _visual_tokens(self.vlm, caught["embeddings"], prefix["input_ids"]).float()[prefix_index_b]
        return self.behind(cache, batch["input_ids"], mask, prefix_index_b), seen

    def _letters(self, logits_bv: Tensor, options_bk: Tensor) -> Tensor:
        """The logits (B, K) of letters that are single tokens."""
        letters: Tensor = self.letters[: options_bk.shape[1]]  # type: ignore[index]
        # Several spellings of one letter: the log of the sum of their probabilities.
        spelled_bks = logits_bv[:, letters.clamp(min=0)].masked_fill(letters < 0, float("-inf"))
        return spelled_bks.logsumexp(-1)

    def _continued(self, cache: Any, mask_bt: Tensor, tree: _Tree, prefix_index_b: Tensor | None = None) -> Tensor:
        """The logits (B, R, L, V) after each token of the tree's R branches, which continue the cached prompt."""
        if cache is None:
            raise ModelError(
                f"{type(self.vlm).__name__} returns no key-value cache of the prompt, needed for options of several "
                "tokens; turn off gradient checkpointing, or use a tokenizer with a token for each letter"
            )
        rows, width = len(tree.branches), max(map(len, tree.branches))
        ids_rl = torch.tensor([[*b, *[b[-1]] * (width - len(b))] for b in tree.branches], device=mask_bt.device)
        _select_rows(cache, torch.arange(len(mask_bt), device=mask_bt.device).repeat_interleave(rows))
        ids = ids_rl.repeat(len(mask_bt), 1)
        mask = torch.cat([mask_bt.repeat_interleave(rows, 0), mask_bt.new_ones(ids.shape)], 1)
        whose_b = torch.arange(len(mask_bt), device=mask_bt.device) if prefix_index_b is None else prefix_index_b
        logits = self.vlm(**self.behind(cache, ids, mask, whose_b.repeat_interleave(rows))).logits
        logits_brlv: Tensor = logits.float().unflatten(0, (len(mask_bt), rows))
        return logits_brlv

    def behind(self, cache: Any, ids: Tensor, mask: Tensor, whose_b: Tensor) -> dict[str, Any]:
        """Inputs for tokens after the cached ones; row b continues row `whose_b[b]` of the prompts."""
        known: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        # Qwen has three-dimensional positions, and the caller must continue them from the last one.
        if (deltas_b1 := getattr(getattr(self.vlm, "model", None), "rope_deltas", None)) is not None:
            places = (mask.cumsum(1) - 1)[:, -ids.shape[1] :] + deltas_b1[whose_b]
            known["position_ids"] = places.expand(3, -1, -1)
        return known


def _select_rows(cache: Any, index_b: Tensor) -> None:
    """Row b of every layer's state becomes its row `index_b[b]`."""
    for layer in cache.layers:
        # A layer of linear attention (Qwen3.5, LFM2) has states of its own; what it inherits leaves them as they are.
        linear = hasattr(layer, "conv_states")
        (layer.reorder_cache if linear else layer.batch_select_indices)(index_b)


@dataclass(frozen=True)
class _Tree:
    """Options, some with several tokens: p(option) is the product over its tokens, each given the previous ones."""

    spelled: Sequence[Sequence[Spelling]]
    branches: Sequence[Spelling]
    """The token sequences that are appended to the prompt; none of them is the beginning of another."""

    def scores(self, logits_bv: Tensor, deeper_brlv: Tensor) -> Tensor:
        """Log-probabilities (B, K), with several spellings of one option summed."""
        first_bv, deeper_brlv = logits_bv.log_softmax(-1), deeper_brlv.log_softmax(-1)
        return torch.stack([
            torch.stack([self._score(tokens, first_bv, deeper_brlv) for tokens in spelled]).logsumexp(0)
            for spelled in self.spelled
        ], 1)  # fmt: skip

    def _score(self, tokens: Spelling, first_bv: Tensor, deeper_brlv: Tensor) -> Tensor:
        score_b = first_bv[:, tokens[0]]
        for at in range(1, len(tokens)):
            row = next(r for r, branch in enumerate(self.branches) if branch[:at] == tokens[:at])
            score_b = score_b + deeper_brlv[:, row, at - 1, tokens[at]]
        return score_b


def _tree(spelled: Sequence[Sequence[Spelling]]) -> _Tree | None:
    """None if every spelling is one token."""
    before = {tokens[:-1] for of_one in spelled for tokens in of_one} - {()}
    branches = sorted(b for b in before if not any(o != b and o[: len(b)] == b for o in before))
    return _Tree(spelled, branches) if branches else None


def _of_one_position(vlm: nn.Module, logits_bpv: Tensor, mask_bt: Tensor) -> Tensor:
    """The logits (B, V) of the only position that passed through the output layer. Raises `ModelError`."""
    if logits_bpv.shape[:2] != (len(mask_bt), 1):
        raise ModelError(
            f"{type(vlm).__name__} gives logits of shape {tuple(logits_bpv.shape)} for {len(mask_bt)} questions; "
            f"expected ({len(mask_bt)}, 1, vocabulary), those of the answer position: its output layer isn't the one "
            "that get_output_embeddings names, so it can't be scored here: choose another model class"
        )
    return logits_bpv[:, 0]


@contextmanager
def _caught(vlm: nn.Module, needs: Collection[Need], last_b: Tensor) -> Iterator[dict[str, Tensor]]:
    """Capture inner values: `hidden` (B, 1, d), the output layer's input; `embeddings`, the decoder's input.

    Both are read at places that every class of transformers has, so no layer's states need to be stored. Of the
    positions (B, T, d) that come to the output layer, only `last_b` of each row passes through it. Raises `ModelError`
    for a model without such parts.
    """
    caught: dict[str, Tensor] = {}
    hooks = []

    def narrow(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_btd = args[0]
        return (hidden_btd[torch.arange(len(hidden_btd), device=hidden_btd.device), last_b][:, None], *args[1:])

    def keep_hidden(module: nn.Module, args: tuple[Any, ...]) -> None:
        caught["hidden"] = args[0]

    def keep_embeddings(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught["embeddings"] = kwargs["inputs_embeds"]

    head = vlm.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        raise ModelError(
            f"{type(vlm).__name__} has no output layer (get_output_embeddings), whose input at the answer position is "
            "needed; expected a model that continues the question: choose another model class"
        )
    hooks.append(head.register_forward_pre_hook(narrow))
    if "hidden" in needs or "layers" in needs:
        hooks.append(head.register_forward_pre_hook(keep_hidden))
    if "vision" in needs:
        decoder = vlm.get_decoder()  # type: ignore[operator]
        hooks.append(decoder.register_forward_pre_hook(keep_embeddings, with_kwargs=True))
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _layer_states(vlm: nn.Module, last_b: Tensor | None) -> Iterator[list[Tensor]]:
    """Capture the output of each layer of the language model: (B, T, d), or (B, d) at the positions `last_b`.

    None: nothing is captured.
    The positions are chosen at once where no gradient is wanted. Otherwise the whole outputs are in memory anyway, and
    an operation within a layer would be missing when a checkpointed one is computed again. Raises `ModelError`.
    """
    states: list[Tensor] = []
    if last_b is None:
        yield states
        return
    decoder, count = vlm.get_decoder(), vlm.config.get_text_config().num_hidden_layers  # type: ignore[operator,union-attr]
    found = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not found:
        raise ModelError(
            f"{type(vlm).__name__}: its language model has no list of its {count} layers: no states of them"
        )

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        state_btd = output[0] if isinstance(output, tuple) else output
        states.append(state_btd if torch.is_grad_enabled() else _at(state_btd, last_b))

    hooks = [layer.register_forward_hook(keep) for layer in found[0]]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _at(state: Tensor, last_b: Tensor) -> Tensor:
    """The states (B, d) at the positions `last_b`, if they aren't chosen yet."""
    return state if state.ndim == 2 else state[torch.arange(len(state), device=state.device), last_b]


def _visual_tokens(vlm: nn.Module, embeddings_btd: Tensor, ids_bt: Tensor) -> Tensor:
    """The embeddings (B, N, d) at the image tokens' positions: the projector's output for the picture."""
    if looks_across(vlm.config):
        raise ModelError(
            f"{type(vlm).__name__}: its language model looks at images across, so no tokens of the prompt are visual; "
            "expected a model with image tokens for a method that compares them: choose another method or model"
        )
    seen_bt = ids_bt == image_token(vlm.config)
    counts = seen_bt.sum(1).tolist()
    if min(counts) == 0 or len(set(counts)) > 1:
        raise ModelError(
            f"{type(vlm).__name__}: {sorted(set(counts))} visual tokens per picture in one batch; expected the same "
            "number above 0 for all: set the image processor to one size and one number of tiles"
        )
    tokens: Tensor = embeddings_btd[seen_bt].unflatten(0, (len(ids_bt), -1))
    return tokens


def prefix_inputs(batch: Batch) -> Batch:
    """The prefixes of a packed batch, as the processor returned them."""
    return {key.removeprefix(PREFIX): value for key, value in batch.items() if key.startswith(PREFIX)}


def token_counts(config: Any, batch: Batch) -> tuple[float, float]:
    """Attended text tokens and image patches of the whole batch; `config` is the model's."""
    if PREFIX_INDEX in batch:
        begun, patches = token_counts(config, prefix_inputs(batch))
        return begun + float(batch["attention_mask"].sum()), patches
    tokens = float(batch["attention_mask"].sum())
    vision = getattr(config, "vision_config", None)
    size = getattr(vision, "patch_size", None)
    if "pixel_values" not in batch or size is None:
        return tokens, 0.0
    height, width = (size, size) if isinstance(size, int) else size
    frames = getattr(vision, "temporal_patch_size", 1) if batch["pixel_values"].ndim == 2 else 1  # Qwen's patches
    return tokens, batch["pixel_values"].numel() / (3 * frames * height * width)
