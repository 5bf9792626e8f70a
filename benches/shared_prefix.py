"""What it saves to pass an image and the beginning of its questions through the model once.

    python -m benches.shared_prefix            500 images x 18 questions, in ten blocks

**pope**: a POPE-shaped split, `images` x `questions` of yes or no, against batched `generate` as evaluation harnesses
call it: every question with its image, one new token, which may be an option's letter only. The answers must be the
same. **msi**: four orders of the options against one, a question an image. Each of both in turn, block by block:
the figure is the median of the blocks' ratios.

The model has the shape of Qwen2.5-VL, two or more layers, random weights, an image of 448 x 448 pixels is 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image

from benches.common import RESULTS, header, keep
from harness.api import Example, Method
from harness.config import RungConfig
from harness.evaluation.predict import evaluate
from harness.models import encoding, loading
from harness.models.distributed import SingleProcess
from harness.models.scorer import OptionScorer
from methods.hkd4vlm.method import HKD4VLM
from methods.zero_shot import ZeroShot
from tests.helpers import families

SIDE = 448
WORDS = "dog cat car bus tree boat bird cup chair table horse truck bottle book clock pizza kite sheep"
THINGS = WORDS.split()
BATCH = 36


def build(folder: Path, width: int, layers: int) -> tuple[OptionScorer, encoding.Encoder]:
    """A model of Qwen2.5-VL's classes with its processor, saved as a hub's folder holds them."""
    families.build("qwen2_5_vl", folder, width=width, layers=layers, more=" ".join(["Is", "there", "a", "in", *THINGS]))
    config = hf.AutoConfig.from_pretrained(folder)
    vision = config.vision_config
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = layers, width, 3 * width, 4
    vision.patch_size, vision.window_size, vision.fullatt_block_indexes = 14, 112, [layers - 1]
    torch.manual_seed(0)
    model: Any = hf.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5 * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": 56 * 56, "longest_edge": SIDE * SIDE}
    stated = Qwen2VLImageProcessorPil(size=size, patch_size=14, merge_size=2).to_dict()
    stated |= {"processor_class": "Qwen2_5_VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    rung = RungConfig(name="S", model=str(folder))
    encoder = encoding.load_encoder(rung)
    return OptionScorer(loading.load_vlm(rung), encoder.letters).eval(), encoder


def pictures(count: int) -> list[Callable[[], Image.Image]]:
    """Pictures of noise in large blocks, drawn once."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (14, 14, 3), dtype=np.uint8) for _ in range(count)]
    whole = [Image.fromarray(a).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for a in made]
    return [lambda image=image: image for image in whole]


def polled(images: int, questions: int) -> list[Example]:
    """Yes or no, about `questions` things in each image; an image's questions are far from each other, as in POPE."""
    drawn = pictures(images)
    return [
        Example(
            f"{i}/{thing}", str(i), drawn[i], f"Is there a {thing} in the picture ?", "", ("yes", "no"), 0, "c", "b"
        )
        for thing in THINGS[:questions]
        for i in range(images)
    ]


def one_by_one(model: tuple[OptionScorer, encoding.Encoder], examples: list[Example]) -> list[int]:
    """Batched `generate`, each question with its image; the letter is read from the new token."""
    scorer, encoder = model
    encoder.processor.tokenizer.padding_side = "left"
    letters = {tokens[0]: k for k in range(2) for tokens in encoder.letters[k]}
    chosen = []
    for start in range(0, len(examples), BATCH):
        batch = encoder(examples[start : start + BATCH])
        del batch["options"]
        with torch.inference_mode():
            given = scorer.vlm.generate(  # type: ignore[operator]
                **batch, max_new_tokens=1, do_sample=False, prefix_allowed_tokens_fn=lambda *_: list(letters)
            )
        chosen += [letters[int(token)] for token in given[:, -1]]
    return chosen


def ours(model: tuple[OptionScorer, encoding.Encoder], method: Method, examples: list[Example]) -> list[int]:
    rows, _, note = evaluate(model, method, examples, "test", BATCH, SingleProcess())
    assert not note, note
    return [row["chosen"] for row in rows]


def timed(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result, and seconds by the wall's clock and by the process's own."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}


def compared(peer: list[dict[str, float]], own: list[dict[str, float]], clock: str) -> dict[str, Any]:
    """The median of the blocks' ratios by a clock, and their range."""
    ratios = sorted(a[clock] / b[clock] for a, b in zip(peer, own, strict=True))
    return {"median": round(statistics.median(ratios), 2), "range": [round(ratios[0], 2), round(ratios[-1], 2)]}


def total(blocks: list[dict[str, float]]) -> dict[str, float]:
    return {clock: round(sum(block[clock] for block in blocks), 2) for clock in ("wall_s", "cpu_s")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--questions", type=int, default=18)
    parser.add_argument("--block", type=int, default=50, help="images a block")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = header()
    with TemporaryDirectory() as folder:
        model = build(Path(folder) / "S", arguments.width, arguments.layers)
        few, many = polled(2, arguments.questions), polled(arguments.images, arguments.questions)
        one_by_one(model, few)  # what is slow the first time
        ours(model, ZeroShot(), few)
        ours(model, HKD4VLM(), few)
        peers, owns, once, shifted = [], [], [], []
        other, yes = 0, 0
        for first in range(0, arguments.images, arguments.block):
            groups = {str(i) for i in range(first, first + arguments.block)}
            block = [e for e in many if e.group in groups]
            theirs, seconds = timed(lambda block=block: one_by_one(model, block))  # type: ignore[misc]
            peers.append(seconds)
            mine, seconds = timed(lambda block=block: ours(model, ZeroShot(), block))  # type: ignore[misc]
            owns.append(seconds)
            other += sum(a != b for a, b in zip(theirs, mine, strict=True))
            yes += mine.count(0)
            four = [
                Example(e.id, e.group, e.image, f"what is there in the picture {e.group} ?", "it is a picture",
                        tuple(THINGS[k : k + 4]), 0, "c", "b")
                for k, e in enumerate({e.group: e for e in block}.values())
                for k in [k % 14]
            ]  # fmt: skip
            once.append(timed(lambda four=four: ours(model, ZeroShot(), four))[1])  # type: ignore[misc]
            shifted.append(timed(lambda four=four: ours(model, HKD4VLM(), four))[1])  # type: ignore[misc]
            print(f"{first + len(groups)} of {arguments.images} images", file=sys.stderr, flush=True)
        found: dict[str, Any] = {
            "items": len(many),
            "image_tokens": int((model[1](many[:1])["input_ids"] == loading.image_token(model[0].vlm.config)).sum()),
            "generate": total(peers) | {"items_per_s": round(len(many) / total(peers)["wall_s"], 1)},
            "shared": total(owns) | {"items_per_s": round(len(many) / total(owns)["wall_s"], 1)},
            "faster_wall": compared(peers, owns, "wall_s"),
            "faster_cpu": compared(peers, owns, "cpu_s"),
            "other_answers": other,
            "answered_yes": yes,
        }
        msi = {
            "items": arguments.images,
            "one": total(once),
            "four_shifts": total(shifted),
            "cost_wall": compared(shifted, once, "wall_s"),
            "cost_cpu": compared(shifted, once, "cpu_s"),
        }
    print(json.dumps({"pope": found, "msi": msi}, indent=1))
    size = f" {arguments.layers}x{arguments.width}" if (arguments.layers, arguments.width) != (2, 128) else ""
    for part, figures in (("pope", found), ("msi", msi)):
        keep(RESULTS / "shared_prefix.json", part + size, started | vars(arguments) | figures)


if __name__ == "__main__":
    main()
