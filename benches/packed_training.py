"""What training saves where questions of one image pass it and the beginning of their prompts through the model once.

    python -m benches.packed_training --questions 18

A POPE-shaped training split, 18 questions of yes or no an image of 256 tokens, in the order that keeps `questions` of
an image together (`train.questions_per_image`). **shared**: a batch as training packs it. **alone**: the same
batch, each question with its image, as trainers usually give it. Encoding, forward and backward pass and AdamW, all
weights learn; each repeat in a process of its own, the two in turn.

The model is that of `benches.shared_prefix`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benches.common import RESULTS, header, keep
from benches.kd_step import memory
from benches.shared_prefix import build, polled
from harness.config import RungConfig
from harness.data import order
from harness.models import encoding, loading, shared_prefix
from harness.models.scorer import OptionScorer, token_counts

QUESTIONS = 18
WAYS = ("shared", "alone")


def one(way: str, folder: Path, size: int, steps: int, questions: int) -> dict[str, Any]:
    """So many steps one way, and one before that isn't timed: losses, CPU seconds a step, the peak of memory."""
    torch.set_num_threads(1)
    rung = RungConfig(name="S", model=str(folder))
    encoder = encoding.load_encoder(rung)
    scorer = OptionScorer(loading.load_vlm(rung), encoder.letters).train()
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=1e-4, fused=True)
    examples = polled(2 * size // questions, QUESTIONS)
    before, losses, encoding_s, learning, walls, tokens = memory("VmRSS"), [], [], [], [], []
    for step in range(steps + 1):
        shown = [e for _, e in order.batch_at(examples, 0, step * size, size, questions)]
        golds_b = torch.tensor([(step + k) % 2 for k in range(size)])  # all are yes: something to learn
        wall, start = time.perf_counter(), time.process_time()
        batch = shared_prefix.encoded(encoder, shown, share=way == "shared")
        encoded = time.process_time()
        loss = cross_entropy(scorer(batch)["options"], golds_b)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        tokens.append(token_counts(scorer.vlm.config, batch))
        encoding_s.append(encoded - start)
        learning.append(time.process_time() - encoded)
        walls.append(time.perf_counter() - wall)
    whole = statistics.median(map(sum, zip(encoding_s[1:], learning[1:], strict=True)))
    return {
        "losses": losses,
        "text_tokens": tokens[-1][0],
        "patches": tokens[-1][1],
        "encoding_cpu_s": round(statistics.median(encoding_s[1:]), 3),
        "learning_cpu_s": round(statistics.median(learning[1:]), 3),
        "samples_per_cpu_s": round(size / whole, 2),
        "samples_per_wall_s": round(size / statistics.median(walls[1:]), 2),
        "peak_mib": round((memory("VmHWM") - before) / 2**20),
    }


def middle(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the repeats; losses are those of the first."""
    numbers = {key: statistics.median(r[key] for r in repeats) for key in repeats[0] if key != "losses"}
    return numbers | {"losses": repeats[0]["losses"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=36, help="Questions a batch.")
    parser.add_argument("--questions", type=int, default=18, help="Of an image that stand together.")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--one", choices=WAYS)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.folder, arguments.size, arguments.steps, arguments.questions)))
        return
    settings = {key: getattr(arguments, key) for key in ("questions", "size", "steps", "repeats", "width", "layers")}
    found: dict[str, Any] = header() | settings
    done: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as folder:
        build(Path(folder), arguments.width, arguments.layers)
        for repeat in range(arguments.repeats):
            for way in WAYS if repeat % 2 == 0 else WAYS[::-1]:
                command = [sys.executable, "-m", "benches.packed_training", "--one", way, "--folder", folder]
                command += [f"--{key}={settings[key]}" for key in ("questions", "size", "steps")]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                done[way].append(json.loads(said.splitlines()[-1]))
    shared, alone = (middle(done[way]) for way in WAYS)
    found |= {"shared": shared, "alone": alone} | {
        "faster_cpu": round(shared["samples_per_cpu_s"] / alone["samples_per_cpu_s"], 2),
        "faster_wall": round(shared["samples_per_wall_s"] / alone["samples_per_wall_s"], 2),
        "faster_learning_cpu": round(alone["learning_cpu_s"] / shared["learning_cpu_s"], 2),
        "memory": round(shared["peak_mib"] / alone["peak_mib"], 3),
        "losses_apart": max(abs(a - b) for a, b in zip(shared["losses"], alone["losses"], strict=True)),
    }
    print(json.dumps(found, indent=1))
    keep(RESULTS / "packed_training.json", f"questions_{arguments.questions}", found)


if __name__ == "__main__":
    main()
