"""Examples as model inputs: chat template, image processor, tokenizer, padding; and how a tokenizer spells options.

The processor comes from the checkpoint's folder, as transformers makes it, but without its video part, which needs
torchvision.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import string
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from harness.api import Example
from harness.config import RungConfig
from harness.errors import ModelError, first_line
from harness.models import control_tokens, ladders

Batch = dict[str, Tensor]

PAD_TO = 16
"""Batches are padded to a multiple of this many tokens: on a CPU, kernels use extra memory for each new length."""

Spelling = tuple[int, ...]
"""The tokens that spell an option letter, in order."""

PLAIN = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
"""The prompt format of PaliGemma's training: its checkpoints aren't chat models and have no template."""

_LABELS = "labels"
"""Inputs that PaliGemma's processor makes. A model that gets them computes a loss over the whole sequence."""


class Encoder:
    """Turns examples into model inputs: chat template, image processor, tokenizer, padding."""

    def __init__(self, processor: Any, name: str) -> None:
        self.processor, self.name = processor, name
        _give_template(processor, name)
        self.control = control_tokens.ControlTokens(processor)
        self.letters = [spellings(processor.tokenizer, letter) for letter in string.ascii_uppercase]
        if not self.one_token_each:
            processor.tokenizer.padding_side = "left"  # the answer must directly follow the question
        self._checked = 0
        self._one_at_a_time = Lock()
        """The loop encodes ahead in a thread, and a tokenizer may not support use by two threads at once."""

    @cached_property
    def fingerprint(self) -> str:
        """Equal for two processors that encode in the same way: they can share their inputs."""
        p = self.processor
        parts = [p.to_json_string(), p.tokenizer.backend_tokenizer.to_str(), str(p.chat_template)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def tokens(self) -> dict[str, int]:
        """The id of each token. Two models can be compared over the vocabulary if these are equal."""
        found: dict[str, int] = self.processor.tokenizer.get_vocab()
        return found

    @cached_property
    def vocabulary(self) -> int:
        """One more than the highest token id. Some models have more output rows."""
        return 1 + max(self.tokens.values())

    @cached_property
    def _numbers(self) -> Tensor | None:
        """The token ids in order if some id below the highest has no token; else None."""
        numbers = sorted(set(self.tokens.values()))
        return None if len(numbers) == self.vocabulary else torch.tensor(numbers)

    def real(self, logits_bv: Tensor) -> Tensor:
        """The logits of existing tokens; a model's surplus output rows are cut off."""
        numbers = self._numbers
        return logits_bv[:, : self.vocabulary] if numbers is None else logits_bv[:, numbers.to(logits_bv.device)]

    def text(self, example: Example) -> str:
        """The full prompt of an example, formatted by the chat template; control tokens in its texts are hidden."""
        content = [{"type": "image"}, {"type": "text", "text": self.control.hidden(example.prompt())}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return text

    @cached_property
    def one_token_each(self) -> bool:
        """Whether every way to spell a letter is a single token."""
        return all(len(tokens) == 1 for spelled in self.letters for tokens in spelled)

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """The tokens of each prompt from the tokenizer alone: one placeholder for the image's tokens."""
        with self._one_at_a_time:
            texts = [self.text(example) for example in examples]
            ids: list[list[int]] = self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
            for row, text in enumerate(texts):
                if control_tokens.is_hidden(text):
                    ids[row] = self.control.ids(text)
        return ids

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Inputs of B examples: the output of the model's processor, and `options` bool (B, K).

        Raises `ModelError` if the tokenizer can't spell a letter in use, or spells two of them in the same way.
        """
        with self._one_at_a_time:
            return self._encoded(examples)

    def _encoded(self, examples: Sequence[Example]) -> Batch:
        sizes = torch.tensor([len(example.options) for example in examples])
        self.check_letters(int(sizes.max()))
        texts = [self.text(example) for example in examples]
        # Some templates, like Gemma's, write the begin-of-sequence token themselves: one is enough.
        bos = self.processor.tokenizer.bos_token
        special = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        images = [[example.load_image()] for example in examples]
        settings = {"padding": True, "pad_to_multiple_of": PAD_TO, "return_tensors": "pt", **special}
        hidden = any(map(control_tokens.is_hidden, texts))
        with control_tokens.recorded(self.processor, hidden) as calls:
            inputs = self.processor(text=texts, images=images, **settings)
        batch = {key: value for key, value in inputs.items() if isinstance(value, Tensor) and key != _LABELS}
        if hidden:
            batch = control_tokens.restore(self.control, batch, calls, examples, PAD_TO)
        batch["options"] = torch.arange(int(sizes.max())) < sizes[:, None]
        return batch

    def check_letters(self, count: int) -> None:
        """Raise `ModelError` unless the first `count` letters can be spelled, each in a different way."""
        if count <= self._checked:
            return
        whose: dict[Spelling, str] = {}
        for letter, spelled in zip(string.ascii_uppercase[:count], self.letters, strict=False):
            if not spelled:
                raise ModelError(
                    f"model {self.name!r}: its tokenizer has no tokens for the option letter {letter!r}; expected "
                    "one or more tokens for each letter in use: choose a model whose tokenizer knows it"
                )
            for tokens in spelled:
                if tokens in whose:
                    raise ModelError(
                        f"model {self.name!r}: its tokenizer spells the option letters {whose[tokens]!r} and "
                        f"{letter!r} in the same way (token {', '.join(map(str, tokens))}), so their answers can't be "
                        "distinguished; expected different tokens: use a tokenizer that keeps upper-case letters"
                    )
                whose[tokens] = letter
        self._checked = count


def spellings(tokenizer: Any, letter: str) -> list[Spelling]:
    """How the tokenizer spells the letter, with and without a leading space; empty if it can't.

    Single tokens if there are any: their probability needs only one forward pass. Otherwise sequences of tokens.
    """
    found = {tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (letter, f" {letter}")}
    known = sorted(tokens for tokens in found if tokens and tokenizer.unk_token_id not in tokens)
    return [tokens for tokens in known if len(tokens) == 1] or known


def _give_template(processor: Any, name: str) -> None:
    """Use the processor's chat template, or its tokenizer's. Raises `ModelError` if there is none."""
    if getattr(processor, "chat_template", None) is None:
        own = getattr(processor.tokenizer, "chat_template", None)
        processor.chat_template = PLAIN if own is None and "PaliGemma" in type(processor).__name__ else own
    if processor.chat_template is None:
        raise ModelError(f"model {name!r}: its processor has no chat template; add chat_template.jinja to the folder")


# ------------------------------------------------------------------------------------------- loading


def quiet() -> None:
    """Silence the messages of transformers while it loads a model."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers")


def load_encoder(rung: RungConfig) -> Encoder:
    """The rung's processor. Raises `ModelError` if the folder has none, or one that can't be built from its files."""
    quiet()
    where = f"model {rung.name!r} ({rung.model})"
    folder = ladders.snapshot(rung)
    try:
        processor = _processor_class(folder).from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        raise ModelError(
            f"{where}: no usable processor: {first_line(error)}; install the packages that it needs, torchvision with "
            "`pip install hkdbench[gpu]`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{where}: no usable processor: {first_line(error)}; expected the checkpoint's own "
            "preprocessor_config.json, processor_config.json and tokenizer files"
        ) from None
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"{where}: no processor for images and text; the folder must hold preprocessor_config.json (or "
            "processor_config.json) beside the tokenizer"
        )
    return Encoder(processor, rung.name)


def load_encoders(rungs: Mapping[str, RungConfig]) -> dict[str, Encoder]:
    """An encoder for each rung; rungs that encode in the same way share one."""
    found: dict[str, Encoder] = {}
    by_fingerprint: dict[str, Encoder] = {}
    for name, rung in rungs.items():
        encoder = load_encoder(rung)
        found[name] = by_fingerprint.setdefault(encoder.fingerprint, encoder)
    return found


def _processor_class(folder: Path) -> Any:
    """The class that builds the folder's processor: the one named in its files, without videos."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    stated = [
        _read(folder / f"{file}.json").get("processor_class")
        for file in ("processor_config", "preprocessor_config", "tokenizer_config")
    ]
    usual = PROCESSOR_MAPPING_NAMES.get(_read(folder / "config.json").get("model_type", ""))
    name = next((name for name in (*stated, usual) if name), "")
    if name == "SmolVLMProcessor":
        # The same for images. SmolVLM's own class also handles videos, for which it needs another package.
        name = "Idefics3Processor"
    found = getattr(transformers, name, None)
    if found is None:
        return transformers.AutoProcessor
    kept = [part for part in found.get_attributes() if "video" not in part]
    if len(kept) == len(found.get_attributes()):
        return found
    return type(name, (found,), {"get_attributes": classmethod(lambda cls: list(kept))})


def _read(file: Path) -> dict[str, Any]:
    """A JSON file as a table; empty if there is none."""
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
