"""A step of distillation on a GPU: a student of 2 billion weights under a teacher of 8, both shaped like Qwen2.5-VL.

    pip install --no-deps trl datasets; python -m benches.gpu_step --out benches/results/gpu_step.json

Prompts of an image of 448 px (256 tokens) and some 750 words, forward KL over 151,936 tokens at the answer, AdamW;
student in float32 under bfloat16 autocast, teacher in bfloat16, random weights. Each way in a process of its own:

- **trl**: the `_compute_loss` of `trl.DistillationTrainer` on given completions (see benches/kd_step.py), models as
  transformers loads them, without what its trainer around it costs;
- **ours**: `OptionScorer`; **apart**: the same without `harness.models.window_attention`;
- **nf4**, **offload**: ours, the teacher in four bits or in the machine's memory;
- **run**: `harness.train.loop` itself, with data, validation and checkpoint around its steps. Seconds a step are those
  between two of its reports; `said_gib` is the peak that `hkdbench plan` predicts.

FLOPs are 2 a weight and token or patch that it sees, once for the teacher, three times for the student; what
checkpointing computes anew, and attention's products of tokens with tokens, aren't counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benches import kd_step, qwen
from benches.common import header, keep
from harness.api import Benchmark, Example, Ladder, Method, Role, Split, Stage, Step
from harness.config import RunConfig, RungConfig, parse
from harness.models import encoding, ladders, loading, quantization, scorer
from harness.models.distributed import SingleProcess
from harness.planning import cost, plan
from harness.train import loop

WAYS = ("trl", "ours", "apart", "nf4", "offload", "run")
WORDS = ("what", "colour", "is", "it", "the", "picture", "red", "green", "blue", "letter")
SMALL = {"words": 40, "side": 112}
TOWER = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
LAYERS = {"num_hidden_layers": 28}
S = {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2} | LAYERS
L = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4} | LAYERS
SHAPES = {
    "L": qwen.Shape(L, (16, 24, 24), 152_064, TOWER, tied=False),
    "S": qwen.Shape(S, (16, 24, 24), 151_936, TOWER, tied=True),
}
TINY = {"L": qwen.small(128, 2, 1008, 64, 2, 112), "S": qwen.small(64, 2, 1000, 64, 2, 112)}


# ------------------------------------------------------------------------------ a benchmark and a method


@dataclass(frozen=True)
class Noise:
    """A picture of random colours."""

    seed: int
    side: int

    def __call__(self) -> Image.Image:
        generator = torch.Generator().manual_seed(self.seed)
        pixels = torch.randint(0, 256, (self.side, self.side, 3), generator=generator, dtype=torch.uint8)
        return Image.fromarray(pixels.numpy())


@dataclass(frozen=True)
class LongPrompts(Benchmark):
    """Pictures and long questions that mean nothing."""

    name = "long_prompts"
    task = "factuality"
    splits = ("train", "validation", "test")
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"

    words: int = 740
    side: int = 448

    def load(self, split: Split) -> Iterable[Example]:
        """As many questions as a few steps see."""
        for i in range(256 if split == "train" else 8):
            question = " ".join(WORDS[(i + k * k) % len(WORDS)] for k in range(self.words))
            image = Noise(i + 1000 * len(split), self.side)
            yield Example(f"{split}-{i}", f"{split}-{i}", image, question, "", ("red", "green"), i % 2, "c", self.name)


@dataclass(frozen=True)
class FrozenTeacher(Method):
    """The largest rung, as it is, teaches the student over the vocabulary."""

    name = "frozen_teacher"
    summary = "Forward KL to a frozen teacher at the answer"
    source = "arXiv 1503.02531"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage."""
        return [Stage("distil", {"teacher": Role(ladder[0]), "student": Role(student, trainable=True)}, 1.0)]

    def needs(self, stage: str) -> frozenset[Any]:
        """All logits at the answer."""
        return frozenset({"vocab"})

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """KL(teacher, student), one number an example."""
        target = step.vocab("teacher").log_softmax(-1)
        return {"student": {"kd": (target.exp() * (target - step.vocab("student").log_softmax(-1))).sum(-1)}}


# ------------------------------------------------------------------------------------------------ a way


def one(way: str, folder: Path, size: int, steps: int, checkpointing: bool, tiny: bool, device: str) -> dict[str, Any]:
    """A few steps one way: the first loss, seconds a step, the peak of the device's memory."""
    examples = list(LongPrompts(**(SMALL if tiny else {})).load("train"))[:size]
    rungs = {name: RungConfig(name=name, model=str(folder / name)) for name in ("S", "L")}
    encoder = encoding.load_encoder(rungs["S"])
    batch = {k: v.to(device) for k, v in encoder(examples).items() if k != "options"}
    student = loading.load_vlm(rungs["S"])
    teacher = quantization.load(rungs["L"], "nf4" if way == "nf4" else "bf16", "bf16")
    if way == "offload":
        quantization.offload(teacher, torch.device(device))
    else:
        teacher.to(device)
    if way in ("trl", "apart"):  # as transformers loads them
        for vlm in (student, teacher):
            qwen.apart(vlm)
    student.to(device).train()
    teacher.eval().requires_grad_(False)
    if checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    answer = torch.full((size, 1), 77, device=device)
    loss_of = kd_step.answers("chunked" if way == "trl" else "ours", student, teacher, batch, answer, "bf16")
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)
    losses, marks = [], []
    for _ in range(steps):
        clock = [now(device)]
        loss = loss_of()
        clock.append(now(device))
        loss.backward()
        clock.append(now(device))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.append(now(device))
        marks.append([b - a for a, b in pairwise(clock)])
        losses.append(float(loss.detach()))
    start = now(device)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        teacher(**batch, logits_to_keep=1, use_cache=False)
    taught = now(device) - start
    of_step = [statistics.median(part[k] for part in marks[1:]) for k in range(3)]
    parts = {"teacher_s": taught, "forward_s": of_step[0] - taught, "backward_s": of_step[1], "optimizer_s": of_step[2]}
    return figures(rungs, batch, sum(of_step), device) | {
        "losses": losses, **{name: round(seconds, 4) for name, seconds in parts.items()},
    }  # fmt: skip


def run(folder: Path, size: int, steps: int, checkpointing: bool, tiny: bool, device: str) -> dict[str, Any]:
    """The harness's own loop."""
    table = {
        "method": "frozen_teacher", "benchmark": "long_prompts", "plugins": [str(Path(__file__).resolve())],
        "benchmark_settings": SMALL if tiny else {}, "ladder": str(folder / "ladder.toml"),
        "student": "S", "cluster": {"workers": 0, "gpus_per_worker": int(device == "cuda")},
        "train": {"examples": size * steps, "batch_size": size, "lr": 1e-6, "precision": "bf16", "validations": 1,
                  "frozen_weights": "bf16", "gradient_checkpointing": checkpointing, "validation_examples": 8},
        "evaluate": {"batch_size": 8},
    }  # fmt: skip
    made = plan.make(parse(RunConfig, table, "bench"))
    said = cost.of(made)["peak_bytes"]
    stamps: list[float] = []

    def report(event: dict[str, Any]) -> None:
        if "losses" in event:
            stamps.append(now(device))

    with TemporaryDirectory() as work:
        found = loop.train(made, SingleProcess(report, torch.device(device)), Path(work))
    encoder = encoding.load_encoder(made.rungs["S"])
    batch = encoder(made.training.splits["train"][:size])
    seconds = statistics.median(b - a for a, b in pairwise(stamps[1:]))
    assert found.preflight is not None
    losses = [row["value"] for row in found.history if row["term"] == "loss/kd"]
    return figures(made.rungs, batch, seconds, device) | {
        "losses": losses, "said_gib": round(said / 2**30, 2), "preflight_s": round(found.preflight.seconds, 1),
    }  # fmt: skip


def figures(
    rungs: Mapping[str, RungConfig], batch: Mapping[str, Tensor], seconds: float, device: str
) -> dict[str, Any]:
    """Speed and memory of steps that take so many seconds."""
    infos = {name: ladders.inspect(rung) for name, rung in rungs.items()}
    tokens, patches = scorer.token_counts(loading.load_config(rungs["S"]), dict(batch))
    flops = {name: ladders.forward_flops(info, tokens, patches) for name, info in infos.items()}
    work = 3 * flops["S"] + flops["L"]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {
        "parameters": {name: info.parameters for name, info in infos.items()},
        "tokens": int(tokens), "patches": int(patches), "step_s": round(seconds, 4),
        "tokens_per_s": round(tokens / seconds), "tflop_per_s": round(work / seconds / 1e12, 1),
        "peak_gib": round(peak / 2**30, 2),
    }  # fmt: skip


def now(device: str) -> float:
    """The clock, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def product(device: str, side: int = 8192) -> float:
    """TFLOP/s of a product of two matrices of random numbers in bfloat16: what the device reaches at best."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    start = now(device)
    for _ in range(10):
        a @ b
    return 10 * 2 * side**3 / (now(device) - start) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sizes", nargs="+", default=["16c", "4"], help="Prompts a batch; c: with checkpointing.")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="Where the models are built, or lie.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="Tiny models, to try the bench itself.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size, checkpointing = int(arguments.sizes[0].rstrip("c")), arguments.sizes[0].endswith("c")
    if arguments.one:
        common = (arguments.folder, size, arguments.steps, checkpointing, arguments.tiny, arguments.device)
        print(json.dumps(run(*common) if arguments.one == "run" else one(arguments.one, *common)))
        return
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "ladder.toml").is_file():
            qwen.build(folder, TINY if arguments.tiny else SHAPES, arguments.device, torch.bfloat16)
        name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
        product_tflops = None if arguments.tiny else round(product(arguments.device))
        keep(arguments.out, "card", header() | {"device": name, "matrix_product_tflop_per_s": product_tflops})
        torch.cuda.empty_cache()
        for text in arguments.sizes:
            for way in arguments.ways:
                command = [sys.executable, "-m", "benches.gpu_step", "--one", way, "--sizes", text, "--folder",
                           str(folder), "--steps", str(arguments.steps), "--device", arguments.device,
                           "--out", str(arguments.out)] + (["--tiny"] if arguments.tiny else [])  # fmt: skip
                start = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = done.stdout.splitlines() or done.stderr.splitlines() or [""]
                found = json.loads(lines[-1]) if done.returncode == 0 else {"failed": lines[-1]}
                found["wall_s"] = round(time.perf_counter() - start, 1)
                print(text, way, found, flush=True)
                keep(arguments.out, f"{way}_{text}", found)


if __name__ == "__main__":
    main()
