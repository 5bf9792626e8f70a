"""Examples as model inputs: chat template, image processor, tokenizer, padding.

The processor comes from the checkpoint's folder, as transformers makes it, but without its parts for video and audio:
those for video need torchvision.
"""

from __future__ import annotations

import copy
import hashlib
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
from PIL import Image
from torch import Tensor

from harness.api import Example
from harness.config import RungConfig, TemplateConfig
from harness.errors import ModelError, first_line
from harness.images import remote
from harness.models import ladders
from harness.models.text import control_tokens, prompts
from harness.models.text.prompts import Spelling

Batch = dict[str, Tensor]

PAD_TO = 16
"""Batches are padded to a multiple of this many tokens: on a CPU, kernels use extra memory for each new length."""

OTHER_MEDIA = ("video", "feature_extractor", "audio")
"""Parts of processors that aren't loaded: they need further packages, and examples have images only."""

_LABELS = "labels"
"""Inputs that PaliGemma's processor makes. A model that gets them computes a loss over the whole sequence."""


class Encoder:
    """Turns examples into model inputs: chat template, image processor, tokenizer, padding."""

    def __init__(
        self, processor: Any, name: str, template: TemplateConfig | None = None, text: str | None = None
    ) -> None:
        """`template`, `text`: what the rung changes about the chat template, and its file's text."""
        self.processor, self.name = processor, name
        prompts.give_template(processor, name, template, text)
        self.control = control_tokens.ControlTokens(processor)
        prompt = self.text(prompts.PROBE)
        self.letters = [prompts.spellings(processor.tokenizer, letter, prompt) for letter in string.ascii_uppercase]
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

    def absent(self, rows: int) -> Tensor | None:
        """bool (rows,): which rows of an output layer have no token; None: every row has one."""
        there = torch.zeros(rows, dtype=torch.bool)
        there[sorted(set(self.tokens.values()))] = True
        return None if there.all() else ~there

    def text(self, example: Example) -> str:
        """The full prompt of an example, formatted by the chat template; control tokens in its texts are hidden."""
        question = self.control.hidden(example.prompt())
        return prompts.rendered(self.processor, question, images=len(example.images))

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

    @property
    def end(self) -> int:
        """The token that ends a response. Raises `ModelError` if the tokenizer has none."""
        found: int | None = self.processor.tokenizer.eos_token_id
        if found is None:
            raise ModelError(
                f"model {self.name!r}: its tokenizer has no token that ends a response; expected an eos_token in "
                "tokenizer_config.json"
            )
        return found

    def response(self, text: str) -> list[int]:
        """The tokens of a response that stands behind a prompt, with the one that ends it."""
        with self._one_at_a_time:
            hidden = self.control.hidden(text)
            if control_tokens.is_hidden(hidden):
                return [*self.control.ids(hidden), self.end]
            return [*self.processor.tokenizer(hidden, add_special_tokens=False)["input_ids"], self.end]

    def plain_ids(self, text: str) -> list[int]:
        """The tokens of a text in which control tokens are meant as such."""
        with self._one_at_a_time:
            ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

    def thinking(self) -> tuple[Encoder, tuple[str, str]]:
        """The same with prompts that end where a thought begins, and the signs that open and close a thought.

        Raises `ModelError` if the model's template can't let it think.
        """
        template, tags = prompts.thinking(self.processor, self.name)
        other = copy.copy(self)
        other.processor = copy.copy(self.processor)
        other.processor.chat_template = template
        return other, tags

    def said(self, ids: Sequence[int]) -> str:
        """The text of a response."""
        with self._one_at_a_time:
            kept = [token for token in ids if token != self.processor.tokenizer.eos_token_id]
            text: str = self.processor.tokenizer.decode(kept, skip_special_tokens=True)
            return text

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Inputs of B examples: the output of the model's processor, and `options` bool (B, K).

        Raises `ModelError` if the tokenizer can't spell a letter in use, or spells two of them in the same way.
        """
        with self._one_at_a_time:
            return self._encoded(examples, PAD_TO)

    def unpadded(self, example: Example) -> Batch:
        """The inputs of one example, as the processor makes them of it alone."""
        with self._one_at_a_time:
            return self._encoded([example], None)

    def _encoded(self, examples: Sequence[Example], pad_to: int | None) -> Batch:
        sizes = torch.tensor([len(example.options) for example in examples])
        self.check_letters(int(sizes.max()))
        texts = [self.text(example) for example in examples]
        # Some templates, like Gemma's, write the begin-of-sequence token themselves: one is enough.
        bos = self.processor.tokenizer.bos_token
        special = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        images = _pictures(examples)
        settings = {"padding": True, "pad_to_multiple_of": pad_to, "return_tensors": "pt", **special}
        hidden = any(map(control_tokens.is_hidden, texts))
        with control_tokens.recorded(self.processor, hidden) as calls:
            inputs = self.processor(text=texts, images=images, **settings)
        batch = {key: value for key, value in inputs.items() if isinstance(value, Tensor) and key != _LABELS}
        if hidden:
            batch = control_tokens.restore(self.control, batch, calls, examples, pad_to or 1)
        batch["options"] = torch.arange(int(sizes.max())) < sizes[:, None]
        return batch

    def tiling(self, tokens: int) -> str:
        """What to know about an image that became so many tokens; empty: nothing."""
        own = getattr(self.processor.image_processor, "crop_to_patches", None)
        each = getattr(self.processor, "image_seq_length", None)
        if own is not False or each is None or tokens <= each:
            return ""
        return (
            f"model {self.name!r}: preprocessor_config.json says crop_to_patches = false, but its processor cuts "
            f"images into tiles all the same: {tokens:,} image tokens, where one tile has {each}; for one tile an "
            "image set max_patches = 1 in preprocessor_config.json"
        )

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


# ------------------------------------------------------------------------------------------- loading


def _pictures(examples: Sequence[Example]) -> list[list[Image.Image]]:
    """The images of each example; those that are fetched, several at a time."""
    ones = [one for example in examples for one in example.each_image()]
    loaded = iter(remote.each(Example.load_image, ones, any(remote.is_remote(one.image) for one in ones)))
    return [[next(loaded) for _ in example.images] for example in examples]


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
        missing = first_line(error).partition(". Check out")[0]
        raise ModelError(
            f"{where}: no usable processor: {missing}; install the packages that it needs, torchvision with "
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
    return Encoder(processor, rung.name, rung.template, ladders.template_text(rung))


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
        ladders.read_json(folder / f"{file}.json").get("processor_class")
        for file in ("processor_config", "preprocessor_config", "tokenizer_config")
    ]
    usual = PROCESSOR_MAPPING_NAMES.get(ladders.read_json(folder / "config.json").get("model_type", ""))
    name = next((name for name in (*stated, usual) if name), "")
    if name == "SmolVLMProcessor":
        # The same for images. SmolVLM's own class also handles videos, for which it needs another package.
        name = "Idefics3Processor"
    found = getattr(transformers, name, None)
    if found is None:
        return transformers.AutoProcessor
    parts = list(found.get_attributes())
    kept = [part for part in parts if not any(other in part for other in OTHER_MEDIA)]
    return found if kept == parts else _with_parts(found, parts, kept)


def _with_parts(found: Any, parts: list[str], kept: list[str]) -> Any:
    """The processor class with these of its parts; None stands in its constructor for the others."""
    from transformers import ProcessorMixin

    class Kept(ProcessorMixin):  # type: ignore[misc]
        """What every processor class calls to set its parts."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given = dict(zip(parts, args, strict=False)) | kwargs
            super().__init__(**{name: part for name, part in given.items() if name in kept or name not in parts})

        @classmethod
        def get_attributes(cls) -> list[str]:
            return list(kept)

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            made = dict(zip(kept, super()._get_arguments_from_pretrained(*args, **kwargs), strict=True))
            return [made.get(part) for part in parts]

        @property
        def video_processor(self) -> Any:
            """MiniCPM-V reads settings of its video part that its image part has too."""
            return self.image_processor

    # Between the class and ProcessorMixin: what it hands on to its base comes here.
    return type(found.__name__, (found, Kept), {})
