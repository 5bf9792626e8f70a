"""A step of distillation over the vocabulary beside TRL's: 151,936 tokens, one answer token a prompt.

    pip install --no-deps trl; python -m benches.kd_step [--side 0] [--shared --size 18]

Prompts of 1,000 tokens, with an image or (`--side 0`) without; or (`--shared`) claims of 20 words about one image and
one context (of `--context` words). Same weights, prompts, objective (forward KL at the answer, temperature 1), AdamW,
each in a process of its own. **ours**: `OptionScorer`, the output layer at the answer alone, for student and teacher.
**trainer**: a step of `trl.DistillationTrainer` itself, which first generates the answer (one token) and encodes its
prompts. **chunked**: its `_compute_loss` alone, on a given answer. **gkd**: the `compute_loss` of
`trl.experimental.gkd.GKDTrainer`, which learns from given answers, and takes no images.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benches import qwen
from benches.common import RESULTS, header, keep
from harness.api import Example
from harness.config import RungConfig
from harness.models import encoding, loading, shared_prefix
from harness.models.encoding import Batch
from harness.models.scorer import OptionScorer
from tests.helpers import families

ROWS, TOKENS = 151_936, 1_000
WAYS = ("ours", "trainer", "chunked", "gkd")


def answers(
    way: str, student: Any, teacher: Any, inputs: Batch, answer: Tensor, precision: str = "fp32"
) -> Callable[[], Tensor]:
    """What computes the loss. `inputs`: of the prompts, padded left, as a model takes them; `answer`: (B, 1)."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    longer = torch.cat([ids, answer], 1)
    if way == "ours":
        batch = inputs | {"options": torch.ones(len(ids), 2, dtype=torch.bool, device=ids.device)}
        pupil, master = (OptionScorer(vlm, [[(1,)], [(2,)]], precision) for vlm in (student, teacher))
        for scorer in (pupil, master):
            scorer.letters = scorer.letters.to(ids.device)  # type: ignore[assignment,operator]

        def own() -> Tensor:
            with torch.inference_mode():
                taught = master(batch, ("vocab",))["vocab"]
            learned = pupil(batch, ("vocab",))["vocab"].log_softmax(-1)
            target = taught[:, : learned.shape[1]].clone().log_softmax(-1)  # without the teacher's larger padding
            return (target.exp() * (target - learned)).sum(-1).mean()

        return own
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    if way == "gkd":
        from trl.experimental.gkd import GKDTrainer

        labels = torch.full_like(longer, -100)
        labels[:, -1:] = answer
        trainer = SimpleNamespace(teacher_model=teacher, beta=0.0, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss)
        inputs = {"input_ids": longer, "attention_mask": torch.ones_like(longer), "labels": labels}
        return lambda: GKDTrainer.compute_loss(trainer, student, inputs)
    from trl import DistillationTrainer

    given = {**inputs, "prompt_ids": ids, "prompt_mask": mask, "completion_ids": answer,
             "completion_mask": torch.ones_like(answer)}  # fmt: skip
    if "mm_token_type_ids" in given:  # of the whole sequence
        given["mm_token_type_ids"] = torch.nn.functional.pad(given["mm_token_type_ids"], (0, 1))
    trainer = SimpleNamespace(
        teacher_model=teacher, beta=0.0, temperature=1.0, _is_vlm=True, model_kwarg_keys={"logits_to_keep"},
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        _forward_redirection=lambda wrapper, inner, method, *args, **more: method(*args, **more),
    )  # fmt: skip
    plain = inspect.unwrap(DistillationTrainer._get_last_hidden_state)  # without the clock around it
    trainer._get_last_hidden_state = partial(plain, trainer)
    compute = inspect.unwrap(DistillationTrainer._compute_loss)

    def theirs() -> Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss: Tensor = compute(trainer, student, given, None)[0]
        return loss

    return theirs


def one(way: str, folder: Path, size: int, steps: int, side: int, shared: bool, context: int) -> dict[str, Any]:
    """A few steps one way: the first loss, seconds a step, and the peak of memory above what was there before."""
    torch.set_num_threads(1)
    rungs = [RungConfig(name=name, model=str(folder / name)) for name in ("S", "L")]
    student, teacher = (loading.load_vlm(rung) for rung in rungs)
    if way != "ours":
        qwen.apart(student), qwen.apart(teacher)
    student.train()
    teacher.eval().requires_grad_(False)
    encoder = encoding.load_encoder(rungs[0])
    asked, plain, own = questions(encoder, size, side, shared, context)
    if way == "trainer":
        return trainer_steps(student, teacher, encoder.processor, asked, steps)
    loss_of = answers(way, student, teacher, own if way == "ours" else plain, torch.full((size, 1), 77))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    before, losses, wall, cpu = memory("VmRSS"), [], [], []
    for _ in range(steps):
        start, work = time.perf_counter(), time.process_time()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - work)
        losses.append(float(loss.detach()))
    return figures(losses, wall, cpu, size, before)


def figures(losses: list[float], wall: list[float], cpu: list[float], size: int, before: int) -> dict[str, Any]:
    """Medians of steps that took `wall` and `cpu` seconds, and the peak of memory above `before`."""
    return {
        "losses": losses,
        "wall_s": round(statistics.median(wall), 3),
        "cpu_s": round(statistics.median(cpu), 3),
        "samples_per_cpu_s": round(size / statistics.median(cpu), 3),
        "peak_mib": round((memory("VmHWM") - before) / 2**20),
    }


def questions(
    encoder: encoding.Encoder, size: int, side: int, shared: bool, context: int
) -> tuple[list[dict[str, Any]], Batch, Batch]:
    """Prompts of one length: as conversations, as a model takes them, and as ours takes them.

    Of 1,000 tokens each, with an image of their own if it has a side; or `shared`: claims of 20 words about one image,
    behind a context of so many words.
    """
    words, rng = families.WORDS.split(), random.Random(0)
    image = Image.radial_gradient("L").resize((side, side)).convert("RGB") if side else None

    def example(number: int, count: int) -> Example:
        text = " ".join(rng.choices(words, k=count))
        return Example(str(number), "", lambda: image, "what is it ?", text, ("red", "green"), 0, "", "")  # type: ignore[arg-type,return-value]

    def said(one: Example) -> dict[str, Any]:
        seen = [{"type": "image"}] if side else []
        return {"role": "user", "content": [*seen, {"type": "text", "text": one.prompt()}]}

    def taken(asked: list[Example]) -> Batch:
        texts = [
            encoder.processor.apply_chat_template([said(one)], add_generation_prompt=True, tokenize=False)
            for one in asked
        ]
        images = {"images": [[image]] * len(asked)} if side else {}
        return dict(encoder.processor(text=texts, **images, return_tensors="pt"))

    around = taken([example(0, 100)])["input_ids"].shape[1] - 100
    asked = [example(i, 20 if shared else TOKENS - around) for i in range(size)]
    if shared:
        common = " ".join(rng.choices(words, k=context))
        asked = [replace(one, image=asked[0].image, context=common) for one in asked]
    plain, more = taken(asked), {"images": [image]} if side else {}
    rows = [{"prompt": [said(one)], **more} for one in asked]
    return rows, plain, shared_prefix.encoded(encoder, asked, share=True) if shared else plain


def trainer_steps(
    student: Any, teacher: Any, processor: Any, asked: list[dict[str, Any]], steps: int
) -> dict[str, Any]:
    """The same steps by TRL's trainer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DistillationConfig, DistillationTrainer

    losses, wall, cpu, began = [], [], [], [0.0, 0.0]

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            began[:] = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wall.append(time.perf_counter() - began[0])
            cpu.append(time.process_time() - began[1])

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            losses.extend(float(logs[key]) for key in ("loss",) if key in logs)

    with TemporaryDirectory() as out:
        settings = DistillationConfig(
            out, per_device_train_batch_size=len(asked), max_steps=steps, max_completion_length=1, beta=0.0,
            temperature=1.0, learning_rate=1e-4, lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=0.0,
            bf16=False, use_cpu=True, gradient_checkpointing=False, report_to=[], save_strategy="no", logging_steps=1,
            disable_tqdm=True,
        )  # fmt: skip
        trainer = DistillationTrainer(
            student, teacher, args=settings, train_dataset=Dataset.from_list(asked), processing_class=processor,
            callbacks=[Clock()],
        )  # fmt: skip
        before = memory("VmRSS")
        trainer.train()
    return figures(losses[:steps], wall, cpu, len(asked), before)


def memory(name: str) -> int:
    """Bytes of this process, now (VmRSS) or at the most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1, help="Sequences a batch.")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--side", type=int, default=448, help="Of the image in a prompt; 0: words alone.")
    parser.add_argument("--shared", action="store_true", help="All prompts are short, and about one image.")
    parser.add_argument("--context", type=int, default=0, help="Words that the shared prompts begin with.")
    parser.add_argument("--one", choices=WAYS)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(
            json.dumps(
                one(
                    arguments.one,
                    arguments.folder,
                    arguments.size,
                    arguments.steps,
                    arguments.side,
                    arguments.shared,
                    arguments.context,
                )
            )
        )
        return
    import trl

    found: dict[str, Any] = header() | {"trl": trl.__version__, "vocabulary": ROWS, "tokens": TOKENS}
    keys = ("size", "steps", "width", "side", "context")
    found |= {key: getattr(arguments, key) for key in keys}
    side, ways = arguments.side or 56, [way for way in WAYS if way != "gkd" or not arguments.side]  # it takes no images
    with TemporaryDirectory() as folder:
        wide = {"L": 2 * arguments.width, "S": arguments.width}
        shapes = {name: qwen.small(width, 2, ROWS, 64, 8, side) for name, width in wide.items()}
        qwen.build(Path(folder), shapes)
        for way in ways:
            command = [sys.executable, "-m", "benches.kd_step", "--one", way, "--folder", folder]
            command += [f"--{key}={getattr(arguments, key)}" for key in keys] + ["--shared"] * arguments.shared
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
            print(way, found[way], flush=True)
    ours = found["ours"]
    for way in ways[1:]:
        peer = found[way]
        found[f"against_{way}"] = {
            "faster_cpu": round(peer["cpu_s"] / ours["cpu_s"], 2),
            "memory": round(ours["peak_mib"] / peer["peak_mib"], 3),
            "losses_apart": max(abs(a - b) for a, b in zip(ours["losses"], peer["losses"], strict=True)),
        }
    print({key: value for key, value in found.items() if key.startswith("against")})
    part = (
        ("shared_context" if arguments.context else "shared")
        if arguments.shared
        else "images"
        if arguments.side
        else "words"
    )
    keep(RESULTS / "kd_step.json", part, found)


if __name__ == "__main__":
    main()
