"""Vision-language models as scorers of options: any folder that `AutoModelForImageTextToText` and
`AutoProcessor` load. One forward pass gives the logits of the option letters at the answer position.
"""

from __future__ import annotations

import hashlib
import logging
import os
import string
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Example, Need
from harness.config import RungConfig
from harness.errors import ModelError, first_line

ABSENT = -1e4
"""The logit of an option that an example doesn't have: probability 0, finite log."""

PAD_TO = 16
"""Batches are padded to a multiple of this many tokens: each other length costs a CPU's kernels memory of their own."""

Batch = dict[str, Tensor]

Outputs = dict[str, Tensor]
"""`options` (B, K), and what was needed beside it: `hidden` (B, d), `vision` (B, N, d), `vocab` (B, V)."""


class Encoder:
    """Turns examples into model inputs: chat template, image processor, tokenizer, padding."""

    def __init__(self, processor: Any, name: str) -> None:
        self.processor = processor
        if (
            getattr(processor, "chat_template", None) is None
            and getattr(processor.tokenizer, "chat_template", None) is None
        ):
            raise ModelError(
                f"model {name!r}: its processor has no chat template; add chat_template.jinja to the folder"
            )
        self.letters = [_spellings(processor.tokenizer, letter, name) for letter in string.ascii_uppercase]

    @cached_property
    def fingerprint(self) -> str:
        """Equal for two processors that encode alike: their inputs can be shared."""
        p = self.processor
        parts = [p.to_json_string(), p.tokenizer.backend_tokenizer.to_str(), str(p.chat_template)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def tokens(self) -> dict[str, int]:
        """The number of each token: two models can be compared over the vocabulary where these are equal."""
        found: dict[str, int] = self.processor.tokenizer.get_vocab()
        return found

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens there are: some models have room for more."""
        return 1 + max(self.tokens.values())

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Inputs of B examples: what the model's processor gives, and `options` bool (B, K)."""
        texts = [
            self.processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.prompt()}]}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for example in examples
        ]
        inputs = self.processor(
            text=texts,
            images=[[example.load_image()] for example in examples],
            padding=True,
            pad_to_multiple_of=PAD_TO,
            return_tensors="pt",
        )
        batch = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
        sizes = torch.tensor([len(example.options) for example in examples])
        batch["options"] = torch.arange(int(sizes.max())) < sizes[:, None]
        return batch


def _spellings(tokenizer: Any, letter: str, name: str) -> list[int]:
    """The single tokens that spell the letter, with and without a space before it."""
    ids = {tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (letter, f" {letter}")}
    single = sorted({i[0] for i in ids if len(i) == 1} - {tokenizer.unk_token_id})
    if not single:
        raise ModelError(f"model {name!r}: its tokenizer has no single token for the option letter {letter!r}")
    return single


class OptionScorer(nn.Module):
    """A VLM that gives the option logits (B, K), float32, at the answer position, and more where it is needed."""

    def __init__(self, vlm: nn.Module, letters: Sequence[Sequence[int]], precision: str = "fp32") -> None:
        super().__init__()
        self.vlm, self.precision = vlm, precision
        width = max(len(ids) for ids in letters)
        padded = torch.tensor([[*ids, *[-1] * (width - len(ids))] for ids in letters])
        self.register_buffer("letters", padded, persistent=False)

    def forward(self, batch: Batch, needs: Collection[Need] = ()) -> Outputs:
        inputs = {key: value for key, value in batch.items() if key != "options"}
        # The last attended token of each row: its own last one under right padding, the common last under left.
        mask = inputs["attention_mask"]
        last_b = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        kept, row_b = last_b.unique(return_inverse=True)
        with (
            _caught(self.vlm, needs) as caught,
            torch.autocast(mask.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            logits_bpv = self.vlm(**inputs, logits_to_keep=kept, use_cache=False).logits
        at = torch.arange(len(last_b), device=last_b.device), row_b
        logits_bv = logits_bpv[at].float()
        options_bk = batch["options"]
        letters: Tensor = self.letters[: options_bk.shape[1]]  # type: ignore[index]
        # Several spellings of one letter: the log of their summed probability.
        spelled_bks = logits_bv[:, letters.clamp(min=0)].masked_fill(letters < 0, float("-inf"))
        outputs: Outputs = {"options": spelled_bks.logsumexp(-1).masked_fill(~options_bk, ABSENT)}
        if "hidden" in needs:
            outputs["hidden"] = caught["hidden"][at].float()
        if "vision" in needs:
            outputs["vision"] = _visual_tokens(self.vlm, caught["embeddings"], inputs["input_ids"]).float()
        if "vocab" in needs:
            outputs["vocab"] = logits_bv
        return outputs


@contextmanager
def _caught(vlm: nn.Module, needs: Collection[Need]) -> Iterator[dict[str, Tensor]]:
    """What passes through the model inside: `hidden`, the output layer's input; `embeddings`, the decoder's.

    Both are read where every class of transformers has them, so no layer's states need to be kept. Raises
    `ModelError` for a model without such parts.
    """
    caught: dict[str, Tensor] = {}
    hooks = []

    def keep_hidden(module: nn.Module, args: tuple[Any, ...]) -> None:
        caught["hidden"] = args[0]

    def keep_embeddings(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught["embeddings"] = kwargs["inputs_embeds"]

    if "hidden" in needs:
        head = vlm.get_output_embeddings()  # type: ignore[operator]
        if head is None:
            raise ModelError(f"{type(vlm).__name__} has no output layer (get_output_embeddings): no hidden states")
        hooks.append(head.register_forward_pre_hook(keep_hidden))
    if "vision" in needs:
        decoder = vlm.get_decoder()  # type: ignore[operator]
        hooks.append(decoder.register_forward_pre_hook(keep_embeddings, with_kwargs=True))
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def _visual_tokens(vlm: nn.Module, embeddings_btd: Tensor, ids_bt: Tensor) -> Tensor:
    """The embeddings (B, N, d) at the image tokens' places: what the projector made of the picture."""
    config: Any = vlm.config
    image = getattr(config, "image_token_id", None)
    image = getattr(config, "image_token_index", None) if image is None else image
    seen_bt = ids_bt == (-1 if image is None else image)
    counts = seen_bt.sum(1).tolist()
    if min(counts) == 0 or len(set(counts)) > 1:
        raise ModelError(
            f"{type(vlm).__name__}: {sorted(set(counts))} visual tokens a picture in one batch; expected one number "
            "above 0 for all: set the image processor to one size and one number of tiles"
        )
    tokens: Tensor = embeddings_btd[seen_bt].unflatten(0, (len(ids_bt), -1))
    return tokens


def width(config: Any) -> int:
    """The size of the hidden states of a transformers configuration's language model."""
    size: int = config.get_text_config().hidden_size
    return size


def quiet() -> None:
    """Silence what transformers prints while it loads a model."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers")


def load_encoder(rung: RungConfig) -> Encoder:
    """The rung's processor. Raises `ModelError` where the folder has none."""
    quiet()
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(rung.model, revision=rung.revision or "main")
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"model {rung.name!r} ({rung.model}): no usable processor: {first_line(error)}") from None
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"model {rung.name!r} ({rung.model}): no processor for images and text; the folder must hold "
            "preprocessor_config.json (or processor_config.json) beside the tokenizer"
        )
    return Encoder(processor, rung.name)


def load_vlm(rung: RungConfig) -> nn.Module:
    """The rung's model in float32 on the CPU, without dropout state. Raises `ModelError`."""
    quiet()
    from transformers import AutoModelForImageTextToText

    try:
        model: nn.Module = AutoModelForImageTextToText.from_pretrained(
            rung.model, revision=rung.revision or "main", dtype=torch.float32, attn_implementation=rung.attention
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"model {rung.name!r} ({rung.model}): not a vision-language model that transformers can load: "
            f"{first_line(error)}"
        ) from None
    return model


def load_config(rung: RungConfig) -> Any:
    """The rung's transformers configuration, without its weights."""
    quiet()
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(rung.model, revision=rung.revision or "main")


def token_counts(config: Any, batch: Batch) -> tuple[float, float]:
    """Attended text tokens and image patches of the whole batch; `config` is the model's."""
    tokens = float(batch["attention_mask"].sum())
    vision = getattr(config, "vision_config", None)
    size = getattr(vision, "patch_size", None)
    if "pixel_values" not in batch or size is None:
        return tokens, 0.0
    height, width = (size, size) if isinstance(size, int) else size
    return tokens, batch["pixel_values"].numel() / (3 * height * width)
