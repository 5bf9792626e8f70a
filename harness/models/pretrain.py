"""The seeded recipe for the weights of the tiny ladder: `pretrain(rung, folder, lessons)`.

Two techniques let such small models learn to check a claim (see docs/tiny_ladder.md for the trials):
1. Image tokens are first aligned with words: each occupied cell's token is classified against the language
      model's own tied embeddings of its words. This loss stays, with weight 0.3, to the end.
2. A picture is encoded once for many questions. They are packed in one row after the image tokens,
   and each attends only to the image and to itself.

The lessons are passed in (`Lessons`): this module doesn't depend on the generated scenes.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models import tiny


class PretrainingLesson(Protocol):
    """A picture, the words that each occupied cell shows, and (topic, prompt, one-word answer) questions."""

    @property
    def image(self) -> Callable[[], Image.Image]: ...
    @property
    def cells(self) -> Iterable[tuple[int, tuple[str, ...]]]: ...
    @property
    def questions(self) -> Sequence[tuple[str, str, str]]: ...


class Lessons(Protocol):
    """A curriculum: `words` for the tokenizer, `groups` for the alignment (one word of each per cell)."""

    @property
    def groups(self) -> Sequence[Sequence[str]]: ...
    def words(self) -> Sequence[str]: ...
    def lesson(self, index: int, progress: float) -> PretrainingLesson: ...


@dataclass(frozen=True)
class Recipe:
    """The settings of a pretraining run."""

    steps: int = 7000
    align_steps: int = 200
    images: int = 32
    tokens: int = 144
    """Text tokens per picture; questions that don't fit are left out."""
    align_images: int = 64
    learning_rate: float = 1.5e-3
    final_learning_rate: float = 5e-5
    warmup: int = 100
    weight_decay: float = 0.02
    align_weight: float = 0.3
    seed: int = 0


RECIPES = {"L": Recipe(), "M": Recipe(), "S": Recipe(steps=5500)}
"""Of the shipped weights. S has fewer steps: after 7,000 it answered scenes_factuality as well untrained as when tuned
on 20,000 labels, so nothing was left to teach (docs/tiny_ladder.md)."""


@dataclass
class Batch:
    """B pictures with their packed questions: N image tokens, then L text tokens per row."""

    pixels: Tensor
    """float (B, 3, 64, 64)."""
    cells: Tensor
    """int64 (C, 2 + G): row of the batch, cell, then the index of its word in each of the G groups."""
    ids: Tensor
    """int64 (B, L)."""
    positions: Tensor
    """int64 (B, N + L); the positions of each question continue those of the image."""
    block: Tensor
    """int64 (B, N + L): the index of the question that a token belongs to; 0 image, -1 padding."""
    asked: Tensor
    """int64 (Q, 2): row of the batch and position (N + L) from which each answer is predicted."""
    answers: Tensor
    """int64 (Q,): token ids."""
    topics: list[str]


def pretrain(
    rung: str,
    folder: Path,
    lessons: Lessons,
    recipe: Recipe | None = None,
    *,
    every: int = 500,
    log: Callable[[str], None] = print,
) -> None:
    """Train a rung from scratch and save it to `folder`; every `every` steps an unfinished version is saved there.

    The same recipe, lessons, versions and number of threads give the same weights. Raises `ConfigError` for an unknown
    rung.
    """
    recipe = recipe or RECIPES.get(rung, Recipe())
    model, processor = tiny.build(rung, lessons.words(), recipe.seed)
    model.train()
    # The backward pass of torch's fused attention is slow in bfloat16 on a CPU.
    model.set_attn_implementation("eager")
    groups = [_ids(processor.tokenizer, words) for words in lessons.groups]
    optimizers = _optimizers(model, recipe)
    started = time.perf_counter()
    sums: dict[str, list[float]] = defaultdict(list)
    seen = answered = 0
    for step in range(recipe.align_steps + recipe.steps):
        aligning = step < recipe.align_steps
        progress = max(0, step - recipe.align_steps) / recipe.steps
        count = recipe.align_images if aligning else recipe.images
        taken = [lessons.lesson(seen + i, progress) for i in range(count)]
        seen += count
        batch = collate(taken, processor.tokenizer, lessons.groups, width=0 if aligning else recipe.tokens)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = _rate(recipe, step)
        # bfloat16 halves the time on CPUs that support it; weights and losses stay in float32.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            align, answer, right = losses(model, batch, groups)
        loss = align if aligning else recipe.align_weight * align + answer
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        answered += len(batch.topics)
        sums["align"].append(align.item())
        for topic, correct in zip(batch.topics, right, strict=True):
            sums[topic].append(correct)
        if (step + 1) % 50 == 0:
            figures = " ".join(f"{name} {np.mean(values):.2f}" for name, values in sorted(sums.items()))
            log(f"{rung} {step + 1} {time.perf_counter() - started:.0f}s loss {loss.item():.3f} {figures}")
            sums.clear()
        if (step + 1) % every == 0:
            tiny.save(model, processor, folder)
    model.eval()
    tiny.save(model, processor, folder)
    seconds = time.perf_counter() - started
    write_provenance(folder, rung, recipe, lessons, seen=seen, questions=answered, seconds=seconds)


def _optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest: embeddings, norms, biases, projections."""
    matrices = {name: p for name, p in model.named_parameters() if p.ndim == 2 and "layer" in name}
    others = [p for name, p in model.named_parameters() if name not in matrices]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return [
        torch.optim.Muon(
            list(matrices.values()), lr=rate, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=decay),
    ]


def losses(model: Any, batch: Batch, groups: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[bool]]:
    """The alignment loss, the mean cross-entropy of the answers, and which answers were right."""
    image = model.get_image_features(pixel_values=batch.pixels).pooler_output.float()  # (B, N, width)
    table = model.get_input_embeddings().weight
    tokens = F.normalize(image[batch.cells[:, 0], batch.cells[:, 1]].float(), dim=-1)
    align = sum(
        (
            F.cross_entropy((20 * tokens @ F.normalize(table[ids], dim=-1).T).float(), batch.cells[:, 2 + g])
            for g, ids in enumerate(groups)
        ),
        start=torch.zeros(()),
    ) / len(groups)
    if not len(batch.answers):
        return align, torch.zeros(()), []
    embedded = torch.cat([image, F.embedding(batch.ids, table)], dim=1)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=_mask(batch.block)[:, None],
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    logits = (hidden[batch.asked[:, 0], batch.asked[:, 1]] @ table.T).float()
    right = (logits.argmax(-1) == batch.answers).tolist()
    return align, F.cross_entropy(logits, batch.answers), right


def collate(
    lessons: Sequence[PretrainingLesson], tokenizer: Any, groups: Sequence[Sequence[str]], *, width: int
) -> Batch:
    """Sample, tokenize and pack lessons, `width` text tokens per picture; 0: only pictures and cells."""
    arrays = np.stack([np.asarray(lesson.image().convert("RGB")) for lesson in lessons])
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
    index = [{word: i for i, word in enumerate(words)} for words in groups]
    cells = [
        (b, cell, *(index[g][word] for g, word in enumerate(words)))
        for b, lesson in enumerate(lessons)
        for cell, words in lesson.cells
    ]
    triples = [(b, *q) for b, lesson in enumerate(lessons) for q in lesson.questions] if width else []
    prompts = _ids_of([prompt for _, _, prompt, _ in triples], tokenizer)
    start = tiny.IMAGE_TOKENS
    ids_bl = np.full((len(lessons), width), tokenizer.pad_token_id)
    positions = np.tile(np.arange(start + width), (len(lessons), 1))
    block = np.full((len(lessons), start + width), -1)
    block[:, :start] = 0
    at = [0] * len(lessons)
    asked, topics, answers = [], [], []
    for number, ((b, topic, _, answer), ids) in enumerate(zip(triples, prompts, strict=True), start=1):
        if at[b] + len(ids) > width:
            continue
        span = slice(at[b], at[b] + len(ids))
        behind = slice(start + span.start, start + span.stop)
        ids_bl[b, span] = ids
        positions[b, behind] = np.arange(start, start + len(ids))
        block[b, behind] = number
        at[b] = span.stop
        asked.append((b, start + span.stop - 1))
        topics.append(topic)
        answers.append(answer)
    return Batch(
        pixels=pixels,
        cells=torch.tensor(cells),
        ids=torch.from_numpy(ids_bl),
        positions=torch.from_numpy(positions),
        block=torch.from_numpy(block),
        asked=torch.tensor(asked, dtype=torch.int64).reshape(-1, 2),
        answers=_ids(tokenizer, answers),
        topics=topics,
    )


def _mask(block_bl: Tensor) -> Tensor:
    """The additive attention mask, float (B, L, L): 0 or -1e4. A token sees the image and its own question."""
    same = block_bl[:, :, None] == block_bl[:, None, :]
    image = (block_bl == 0)[:, None, :]
    length = block_bl.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (same | image) & causal
    return torch.zeros(seen.shape).masked_fill_(~seen, -1e4)


def _ids(tokenizer: Any, words: Sequence[str]) -> Tensor:
    """The token id of each word; a word with several tokens is an error in the lessons."""
    pieces = _ids_of(words, tokenizer)
    assert all(len(ids) == 1 for ids in pieces), [w for w, ids in zip(words, pieces, strict=True) if len(ids) != 1]
    return torch.tensor([ids[0] for ids in pieces], dtype=torch.int64)


def _ids_of(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate; both phases share one schedule."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    u = (step - recipe.warmup) / max(1, recipe.steps + recipe.align_steps - recipe.warmup)
    low = recipe.final_learning_rate
    return low + (recipe.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * u))


def write_provenance(
    folder: Path,
    rung: str,
    recipe: Recipe,
    lessons: Lessons,
    *,
    seen: int,
    questions: int,
    seconds: float,
) -> None:
    """Write `provenance.json`: how the weights were made, and their sha256."""
    import transformers

    weights = folder / "model.safetensors"
    document = {
        "rung": rung,
        "recipe": asdict(recipe),
        "lessons": repr(lessons),
        "images_seen": seen,
        "questions_answered": questions,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "sha256": {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()},
    }
    (folder / "provenance.json").write_text(json.dumps(document, indent=2) + "\n")


def verify(folder: Path) -> Iterator[str]:
    """Yield the files of a folder whose sha256 differs from that in its `provenance.json`."""
    document = json.loads((folder / "provenance.json").read_text())
    for name, digest in document["sha256"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            yield name


def main(rung: str, folder: Path, seed: int = 0, steps: int | None = None) -> None:
    """`hkdbench pretrain`: the shipped recipe, with the lessons of the benchmark `scenes_factuality`."""
    from harness import registry

    benchmark = registry.make_benchmark("scenes_factuality", {})
    lessons: Lessons = benchmark.lessons()  # type: ignore[attr-defined]
    # One thread: with several, sums have another order, and so the weights would differ.
    torch.set_num_threads(1)
    recipe = RECIPES[rung]
    pretrain(rung, folder, lessons, replace(recipe, seed=seed, steps=steps or recipe.steps))
