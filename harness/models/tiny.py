"""The tiny ladder L > M > S: InternVL's own classes at 64 px, with a word-level tokenizer.

`build(rung, words, seed)` returns an untrained model with its processor; `save` writes a folder that
`AutoModelForImageTextToText` and `AutoProcessor` load, without torchvision and without a network.
"""

from __future__ import annotations

import string
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import ConfigError, near

SIDE, PATCH, IMAGE_TOKENS = 64, 8, 16
"""The side of the picture and of a patch in px; pixel shuffle turns the 8 x 8 patches into 4 x 4 tokens."""


@dataclass(frozen=True)
class Size:
    """A rung's size: width and layers of the vision tower and of the language model."""

    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    heads: int


RUNGS = ("L", "M", "S")
"""The rungs' names, largest first."""

SIZES = {
    "L": Size(vision_width=96, vision_layers=3, text_width=128, text_layers=6, heads=4),
    "M": Size(vision_width=64, vision_layers=2, text_width=80, text_layers=5, heads=4),
    "S": Size(vision_width=48, vision_layers=2, text_width=64, text_layers=5, heads=4),
}

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
"""`<image>`, the text, and `Answer:`."""

BOILERPLATE = "Answer with the letter."
"""Part of every prompt, for larger models; the tiny tokenizer removes it."""

_SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<end>"}
_IMAGE = {"image_token": "<image>"}
_LETTER_A = "\N{CIRCLED LATIN SMALL LETTER A}"
"""The option letter A, as distinct from the article; the other letters are separate words anyway."""


# ----------------------------------------------------------------------------------------- tokenizer


def vocabulary(words: Iterable[str]) -> dict[str, int]:
    """Token ids: the special tokens, letters, punctuation, the given words, common words, and pieces of words."""
    signs = [".", "?", _LETTER_A]
    pieces = [f"##{c}" for c in string.ascii_lowercase + string.digits]
    pieces += [f"##{end}" for end in ("s", "es", "ed", "ing", "er", "est", "ly", "le", "th")]
    tokens = [*_SPECIAL.values(), *_IMAGE.values(), *signs, *string.ascii_lowercase, *string.digits, *pieces]
    tokens += [*words, *COMMON.split()]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def tokenizer(words: Iterable[str]) -> Any:
    """A word-level tokenizer with a fallback to pieces and characters, as `PreTrainedTokenizerFast`.

    Lower case except for the option letter `A`, which is distinct from the article: `A.` at a line's start, or
    `A` alone. Commas, colons and quotes are dropped; ends of sentences and of lines are the same token.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordPiece(vocabulary(words), unk_token=_SPECIAL["unk_token"], max_input_chars_per_word=40))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(BOILERPLATE, ""),
            # "A" as an option: at the start of a line before a full stop, or the whole text.
            normalizers.Replace(Regex(r"(?:^|(?<=\n))A(?=\.\s)|^\s?A$"), f" {_LETTER_A} "),
            # The full stop after any option letter carries no information.
            normalizers.Replace(Regex(rf"(?:(?<=^[B-Z])|(?<=\n[B-Z])|(?<={_LETTER_A} ))\.(?=\s)"), ""),
            # One token for the end of a sentence or line: at this token the model answers about the preceding text.
            normalizers.Replace(Regex(r"\s*[.?!]*\s*\n\s*|[.?!]+"), " ? "),
            normalizers.Replace(Regex(r"'s\b"), ""),
            normalizers.Lowercase(),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\w.?<>/]+"), "removed"),
            pre_tokenizers.Split(Regex(r"[.?]"), "isolated"),
            pre_tokenizers.Digits(individual_digits=False),
        ]
    )
    core.decoder = decoders.Sequence([decoders.WordPiece(), decoders.Replace(_LETTER_A, "A")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        padding_side="left",
        model_max_length=512,
        extra_special_tokens=dict(_IMAGE),
        **_SPECIAL,
    )


def processor(words: Iterable[str]) -> Any:
    """The processor of the ladder: images to 64 px and -1..1, 16 image tokens each, Pillow only.

    LLaVA's class, because InternVL's own needs a video processor, and so torchvision.
    """
    from transformers import LlavaProcessor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    images = ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(words),
        patch_size=2 * PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=_IMAGE["image_token"],
    )


# --------------------------------------------------------------------------------------------- model


def model(rung: str, text: Any, seed: int) -> Any:
    """The untrained model of a rung for a tokenizer, float32, from a seed. Raises `ConfigError`."""
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLVisionConfig,
        Qwen2Config,
    )

    if rung not in SIZES:
        raise ConfigError(f"unknown rung {rung!r} of the tiny ladder: {near(rung, SIZES)}")
    size = SIZES[rung]
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=size.vision_width,
            intermediate_size=2 * size.vision_width,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=size.heads,
            image_size=(SIDE, SIDE),
            patch_size=(PATCH, PATCH),
            layer_scale_init_value=1.0,
        ),
        text_config=Qwen2Config(
            vocab_size=len(text),
            hidden_size=size.text_width,
            intermediate_size=2 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=text.pad_token_id,
            eos_token_id=text.eos_token_id,
            bos_token_id=None,
        ),
        image_token_id=text.convert_tokens_to_ids(_IMAGE["image_token"]),
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    built = InternVLForConditionalGeneration(config)
    _initialise(built, seed)
    return built


@torch.no_grad()
def _initialise(built: nn.Module, seed: int) -> None:
    """Our own initial weights: the classes' 0.02 is meant for widths in the thousands."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in built.named_parameters():
        if parameter.ndim < 2 or "lambda" in name:
            continue
        if "embed_tokens" in name or "position_embeddings" in name or "cls_token" in name:
            std = 0.1
        else:
            std = parameter[0].numel() ** -0.5
        parameter.normal_(0.0, std, generator=generator)
    # Half of the heads start by attending to tokens similar to themselves: a word attends to the image tokens
    # that are aligned with it. Without this, a model needs much longer to learn the match.
    for layer in built.model.language_model.layers:  # type: ignore[union-attr]
        query, key = layer.self_attn.q_proj, layer.self_attn.k_proj
        half = len(key.weight) // 2
        key.weight[:half] = query.weight[:half]


def build(rung: str, words: Sequence[str], seed: int) -> tuple[Any, Any]:
    """The untrained model of a rung and its processor. Raises `ConfigError` for an unknown rung."""
    ready = processor(words)
    return model(rung, ready.tokenizer, seed), ready


def save(built: Any, ready: Any, folder: Path) -> None:
    """Write model (float16) and processor in `save_pretrained`'s layout; a partly written folder is never visible."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        half = {name: tensor.half().contiguous() for name, tensor in built.state_dict().items()}
        built.config.dtype = torch.float16
        built.save_pretrained(scratch, state_dict=half)
        ready.save_pretrained(scratch)
        folder.mkdir(exist_ok=True)
        for file in sorted(Path(scratch).iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)


COMMON = """
i you he she it we they them their its his her my your our who whose this that these those a an the and or but not
no nor if then than so as at by for from in into of off on onto out over through to under up upon with within
without about against along among around before after behind beside beneath between beyond during except inside
near next outside past since till until is are was were be been being am do does did done has have had having can
could will would shall should may might must there here where when why how what which all any both each every
either neither few many more most much less least other another one ones only own same such some several none
nothing something anything everything nobody somebody zero one two three four five six seven eight nine ten eleven
twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty first second third fourth fifth last
once twice half pair pairs single double triple multiple odd even number numbers count exactly at least most
almost also always never ever again very too quite just still yet now today
red orange yellow green blue purple pink black white grey gray brown gold silver dark light bright colour colours
color colors colored coloured shape shapes shaped size sizes item items object objects thing things piece pieces
box boxes tower towers block blocks square squares circle circles triangle triangles star stars ring rings cross
crosses heart hearts moon moons arrow arrows house houses tree trees fish ball balls cube cubes diamond diamonds
rectangle rectangles line lines row rows column columns corner corners edge edges wall walls base center centre
middle side sides top bottom left right upper lower above below back front end ends high higher highest low tall
taller tallest short shorter small smaller smallest medium big bigger biggest large larger largest long wide
touching touches touch touched attached closely close far away apart together stacked stack stacks standing stand
placed lying lies lie sitting sits sit hanging facing following different similar equal total consists consist
contain contains containing include includes including hold holds make makes made show shows showing shown see
seen look looks find found have appear appears picture pictures image images photo drawing scene grey background
man woman men women boy girl people person child children dog cat horse bird cow sheep car bus train truck bike
boat plane table chair cup bottle food cake fruit apple banana hat shirt hair hand head eye face street road field
grass water sky snow beach room kitchen bed window door sign wearing riding holding eating playing walking running
new old young good bad true false yes no maybe same verifiable partially hallucination claim context caption
question answer option options statement correct wrong statement sentence according based either roof exact arranged
"""
