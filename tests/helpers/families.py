"""The families of vision-language models, tiny and untrained: `build` writes a folder that loads like a real one.

Model, image processor and processor are transformers' own classes; the tokenizer is a word-level one (`words`), or
byte pairs trained on a few sentences in which letters have no token of their own (`pieces`). No hub, no torchvision.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as cores
from tokenizers.trainers import BpeTrainer

from harness.api import Example
from harness.config import RungConfig
from harness.models.encoding import Encoder, load_encoder, quiet
from harness.models.loading import load_vlm
from harness.models.scorer import OptionScorer

WORDS = "what colour is it the picture ? . : , red green blue Answer with letter user assistant model Claim Context"
SENTENCES = ["what colour is it ? A. red B. green C. blue Answer with the letter."] * 4


@dataclass(frozen=True)
class Signs:
    """A family's special tokens, and its chat template."""

    named: dict[str, str]
    """By the attribute that the processor reads."""
    others: tuple[str, ...]
    template: str | None
    pad: str = "<pad>"
    bos: str | None = None


def _template(image: str, start: str = "", turn: str = "", end: str = "\n", answer: str = "") -> str:
    """A chat template in the usual form."""
    return (
        start + "{% for message in messages %}" + turn + "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        + end + "{% endfor %}{% if add_generation_prompt %}" + answer + "{% endif %}"
    )  # fmt: skip


_CHATML = {
    "turn": "<|im_start|>{{ message['role'] }}\n",
    "end": "<|im_end|>\n",
    "answer": "<|im_start|>assistant\n",
}
_QWEN = Signs(
    {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>",
     "vision_end_token": "<|vision_end|>"},
    ("<|im_start|>", "<|im_end|>"),
    _template("<|vision_start|><|image_pad|><|vision_end|>", **_CHATML),
    pad="<|endoftext|>",
)  # fmt: skip
_INTERNVL = Signs(
    {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
     "video_token": "<video>"},
    ("<|im_start|>", "<|im_end|>"),
    _template("<IMG_CONTEXT>\n", **_CHATML),
)  # fmt: skip
_IDEFICS = Signs(
    {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
     "end_of_utterance_token": "<end_of_utterance>"},
    ("<|im_start|>", *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7))),
    _template("<image>", "<|im_start|>", "{{ message['role'] }}:", "<end_of_utterance>\n", "assistant:"),
)  # fmt: skip
_ONEVISION = Signs(
    {"image_token": "<image>", "video_token": "<video>"},
    ("<|im_start|>", "<|im_end|>"),
    _template("<image>\n", **_CHATML),
)
_PALIGEMMA = Signs({"image_token": "<image>"}, (), None, bos="<bos>")
_GEMMA = Signs(
    {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    ("<start_of_turn>", "<end_of_turn>"),
    _template("<start_of_image>", "<bos>", "<start_of_turn>{{ message['role'] }}\n", "<end_of_turn>\n",
              "<start_of_turn>model\n"),
    bos="<bos>",
)  # fmt: skip


# ----------------------------------------------------------------------------------------- tokenizers


def words(signs: Signs, more: str = "") -> Tokenizer:
    """One token a word or sign; each letter is one."""
    known = [*(signs.bos or "").split(), signs.pad, "<unk>", *WORDS.split(), *string.ascii_uppercase, *more.split()]
    core = Tokenizer(cores.WordLevel({word: i for i, word in enumerate(dict.fromkeys(known))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return core


def pieces(signs: Signs, more: str = "") -> Tokenizer:
    """Byte pairs in which a word's first token is the space before it: a letter is two tokens, ▁ and itself."""
    core = Tokenizer(cores.BPE(unk_token="<unk>"))
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(), pre_tokenizers.Split("▁", "isolated")]
    core.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.Punctuation()])
    core.decoder = decoders.Metaspace()
    trainer = BpeTrainer(
        vocab_size=120,
        special_tokens=[*([signs.bos] if signs.bos else []), signs.pad, "<unk>"],
        initial_alphabet=[*string.ascii_letters, "▁"],
        show_progress=False,
    )
    core.train_from_iterator([*SENTENCES, more], trainer)
    return core


def _tokenizer(core: Tokenizer, signs: Signs) -> Any:
    core.add_special_tokens([AddedToken(t, special=True) for t in (*signs.named.values(), *signs.others)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=signs.pad,
        unk_token="<unk>",
        bos_token=signs.bos,
        eos_token=signs.pad,
        padding_side="left",
        model_max_length=512,
        extra_special_tokens=signs.named,
    )


# -------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class Size:
    """How large the model is made."""

    width: int
    layers: int
    rows: int
    """Rows of the output layer: at least the tokens there are."""


def _text(size: Size, **more: Any) -> dict[str, Any]:
    return {"hidden_size": size.width, "intermediate_size": 2 * size.width, "num_hidden_layers": size.layers,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": size.width // 2, "vocab_size": size.rows,
            "max_position_embeddings": 512, **more}  # fmt: skip


def _tower(**more: Any) -> dict[str, Any]:
    return {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, **more}


def _rope(size: Size) -> dict[str, Any]:
    half = size.width // 4
    section = [half - 2 * (half // 3), half // 3, half // 3]
    return {"rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": 1e4}}


def _pixels() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(size={"shortest_edge": 256, "longest_edge": 4096}, patch_size=8, merge_size=2)


Made = tuple[Any, Any, Callable[[Any], dict[str, Any]]]
"""A configuration, an image processor, and what the processor's class takes beside these."""


def _qwen2_vl(size: Size, token: Callable[[str], int]) -> Made:
    config = hf.Qwen2VLConfig(
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": size.width, "num_heads": 2, "patch_size": 8},
        text_config=_text(size, **_rope(size)), **_qwen_ids(token),
    )  # fmt: skip
    return config, _pixels(), lambda _: {}


def _qwen2_5_vl(size: Size, token: Callable[[str], int]) -> Made:
    config = hf.Qwen2_5_VLConfig(
        vision_config={"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": size.width, "fullatt_block_indexes": [1], "window_size": 32},
        text_config=_text(size, **_rope(size)), **_qwen_ids(token),
    )  # fmt: skip
    return config, _pixels(), lambda _: {}


def _qwen3_vl(size: Size, token: Callable[[str], int]) -> Made:
    config = hf.Qwen3VLConfig(
        vision_config={"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": size.width, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        text_config=_text(size, **_rope(size)), **_qwen_ids(token),
    )  # fmt: skip
    return config, _pixels(), lambda _: {}


def _qwen_ids(token: Callable[[str], int]) -> dict[str, int]:
    return {
        f"{name}_id": token(_QWEN.named[name])
        for name in ("image_token", "video_token", "vision_start_token", "vision_end_token")
    }


def _internvl(size: Size, token: Callable[[str], int]) -> Made:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**_tower(image_size=(32, 32), patch_size=(8, 8))),
        text_config=hf.Qwen2Config(**_text(size)),
        image_token_id=token("<IMG_CONTEXT>"), image_seq_length=4,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=2)
    return config, images, lambda _: {"image_seq_length": 4}


def _idefics3(size: Size, token: Callable[[str], int]) -> Made:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil as Images

    return _shuffled(hf.Idefics3Config, Images, size, token)


def _smolvlm(size: Size, token: Callable[[str], int]) -> Made:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil as Images

    return _shuffled(hf.SmolVLMConfig, Images, size, token)


def _shuffled(config_class: Any, images_class: Any, size: Size, token: Callable[[str], int]) -> Made:
    """Idefics3 and what came of it: a tower whose pixels are shuffled before a Llama."""
    config = config_class(
        vision_config=_tower(image_size=32, patch_size=8),
        text_config=hf.LlamaConfig(**_text(size), pad_token_id=token("<pad>")),
        image_token_id=token("<image>"), scale_factor=2, pad_token_id=token("<pad>"),
    )  # fmt: skip
    images = images_class(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return config, images, lambda _: {"image_seq_len": 4}


def _llava_onevision(size: Size, token: Callable[[str], int]) -> Made:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    grid = [[32, 32], [32, 64], [64, 32]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**_tower(image_size=32, patch_size=8, vision_use_head=False)),
        text_config=hf.Qwen2Config(**_text(size)),
        image_token_index=token("<image>"), video_token_index=token("<video>"), image_grid_pinpoints=grid,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    return config, images, lambda _: {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}


def _paligemma(size: Size, token: Callable[[str], int]) -> Made:
    images = _siglip()
    images.image_seq_length = 16
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**_tower(image_size=32, patch_size=8, vision_use_head=False),
                                            projection_dim=size.width),
        text_config=hf.GemmaConfig(**_text(size)),
        image_token_index=token("<image>"), projection_dim=size.width, hidden_size=size.width,
    )  # fmt: skip
    return config, images, lambda _: {}


def _siglip() -> Any:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return SiglipImageProcessorPil(size={"height": 32, "width": 32})


def _gemma3(size: Size, token: Callable[[str], int]) -> Made:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**_tower(image_size=32, patch_size=8, vision_use_head=False)),
        text_config=hf.Gemma3TextConfig(**_text(size, sliding_window=16, query_pre_attn_scalar=16)),
        mm_tokens_per_image=4, image_token_index=token("<image_soft_token>"),
        boi_token_index=token("<start_of_image>"), eoi_token_index=token("<end_of_image>"),
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return config, images, lambda _: {"image_seq_length": 4}


Family = tuple[Callable[[Size, Callable[[str], int]], Made], Signs, str]
"""What makes the configuration, the special tokens, the processor's class."""

FAMILIES: dict[str, Family] = {
    "qwen2_vl": (_qwen2_vl, _QWEN, "Qwen2VLProcessor"),
    "qwen2_5_vl": (_qwen2_5_vl, _QWEN, "Qwen2_5_VLProcessor"),
    "qwen3_vl": (_qwen3_vl, _QWEN, "Qwen3VLProcessor"),
    "internvl": (_internvl, _INTERNVL, "InternVLProcessor"),
    "idefics3": (_idefics3, _IDEFICS, "Idefics3Processor"),
    "smolvlm": (_smolvlm, _IDEFICS, "SmolVLMProcessor"),
    "llava_onevision": (_llava_onevision, _ONEVISION, "LlavaOnevisionProcessor"),
    "paligemma": (_paligemma, _PALIGEMMA, "PaliGemmaProcessor"),
    "gemma3": (_gemma3, _GEMMA, "Gemma3Processor"),
}


def build(
    family: str | Family,
    folder: Path,
    seed: int = 0,
    *,
    width: int = 32,
    layers: int = 2,
    rows: int | None = None,
    vocabulary: Callable[[Signs, str], Tokenizer] = words,
    more: str = "",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes an untrained model of the family with its processor, as a hub's folder holds them; gives the folder.

    `rows`: of the output layer, more than there are tokens where it is padded. `more`: further words. `device`: where
    the weights are drawn.
    """
    quiet()
    make, signs, processor = FAMILIES[family] if isinstance(family, str) else family
    tokenizer = _tokenizer(vocabulary(signs, more), signs)
    config, images, extra = make(Size(width, layers, rows or len(tokenizer)), tokenizer.convert_tokens_to_ids)
    torch.manual_seed(seed)
    with torch.random.fork_rng(), torch.device(device):
        model = hf.AutoModelForImageTextToText.from_config(config, dtype=dtype)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:  # larger than usual: else all answers are nearly alike
                    parameter.normal_(0, 0.5 * parameter[0].numel() ** -0.5)
                elif name.endswith("_attn_gate"):  # Mllama's begins closed: the text wouldn't see the image
                    parameter.fill_(1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    stated = json.loads((folder / "preprocessor_config.json").read_text()) | {"processor_class": processor}
    stated["image_processor_type"] = type(images).__name__.removesuffix("Pil")
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor, **extra(config)}))
    if signs.template is not None:
        (folder / "chat_template.jinja").write_text(signs.template)
    return folder


def loaded(folder: Path) -> tuple[OptionScorer, Encoder]:
    """The model of a folder as a scorer of options, and its encoder."""
    rung = RungConfig(name="S", model=str(folder))
    encoder = load_encoder(rung)
    return OptionScorer(load_vlm(rung), encoder.letters).eval(), encoder


def ladder(folder: Path, **rungs: dict[str, Any]) -> str:
    """A ladder file whose rungs, largest first, are built from `build`'s arguments; gives its path."""
    lines = ['name = "families"']
    for name, arguments in rungs.items():
        build(arguments.pop("family"), folder / name, **arguments)
        lines += ["[[rungs]]", f'name = "{name}"', f'model = "{name}"']
    file = folder / "ladder.toml"
    file.write_text("\n".join(lines))
    return str(file)


# ----------------------------------------------------------------------------------------- questions


class Picture:
    """An image that is the same where its colour and size are, and counts how often it is drawn."""

    drawn = 0

    def __init__(self, colour: str, width: int) -> None:
        self.key = colour, width

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __call__(self) -> Image.Image:
        Picture.drawn += 1
        return Image.new("RGB", (self.key[1], 64), self.key[0])


def examples() -> list[Example]:
    """Three questions of different length, with three, two and three options."""
    one = Example("e1", "g1", Picture("red", 64), "what colour is it ?", "", ("red", "green", "blue"), 0, "c", "test")
    return [
        one,
        replace(one, id="e2", image=Picture("blue", 64), options=("green", "blue"), gold=1),
        replace(one, id="e3", image=Picture("green", 64), context="it is what it is " * 3, gold=1),
    ]


def questions() -> list[Example]:
    """Five of a red picture, three of a wider blue one, one of a green one, in no order; two or three options."""
    rng = random.Random(0)
    found = []
    for colour, width, count in (("red", 64, 5), ("blue", 96, 3), ("green", 64, 1)):
        for k in range(count):
            options = ("red", "green", "blue")[: 2 + k % 2]
            question = "what colour is it ?" + " it is what it is" * (k // 2)
            name = f"{colour}{k}"
            found.append(Example(name, colour, Picture(colour, width), question, "", options, 0, "c", "test"))
    rng.shuffle(found)
    return found
