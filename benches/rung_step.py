"""A training step of each rung with plain and with fused attention, in turn in one process.

    python -m benches.rung_step [--repeats 9] [--out FILE]

32 prompts of scenes_hallucination, bfloat16, one thread: forward, loss, backward. `fused` is what transformers chooses
by default, `eager` is what the ladder sets. Seconds are the process's own (CPU) seconds, medians over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benches.common import RESULTS, header, keep
from harness import registry
from harness.models import encoding, ladders, loading
from harness.models.scorer import OptionScorer

EXAMPLES = 32


def measured(rung: Any, repeats: int) -> dict[str, float]:
    """CPU seconds a step by attention, their ratio, and the largest difference between the two's logits."""
    benchmark = registry.make_benchmark("scenes_hallucination", {"train": EXAMPLES})
    examples = list(benchmark.load("train"))
    golds = torch.tensor([example.gold for example in examples])
    scorers = {}
    for attention in ("fused", "eager"):
        chosen = rung.model_copy(update={"attention": None if attention == "fused" else "eager"})
        encoder = encoding.load_encoder(chosen)
        scorers[attention] = OptionScorer(loading.load_vlm(chosen), encoder.letters, "bf16").train()
    batch = encoder(examples)
    seconds: dict[str, list[float]] = {attention: [] for attention in scorers}
    logits = {}
    for repeat in range(repeats + 1):  # the first one warms up
        for attention, scorer in scorers.items():
            scorer.zero_grad()
            start = time.process_time()
            logits[attention] = scorer(batch)["options"]
            torch.nn.functional.cross_entropy(logits[attention], golds).backward()
            if repeat:
                seconds[attention].append(time.process_time() - start)
    found = {f"{attention}_seconds": statistics.median(some) for attention, some in seconds.items()}
    return found | {
        "speedup": found["fused_seconds"] / found["eager_seconds"],
        "logits_apart": float((logits["fused"] - logits["eager"]).detach().abs().max()),
        "milliseconds_an_example": 1000 * found["eager_seconds"] / EXAMPLES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "rung_step.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep(args.out, "machine", header())
    for rung in ladders.find("tiny").rungs:
        figures = measured(rung, args.repeats)
        print(rung.name, {name: round(value, 4) for name, value in figures.items()}, flush=True)
        keep(args.out, rung.name, figures)


if __name__ == "__main__":
    main()
