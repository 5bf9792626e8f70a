"""What the models of a stage are compared over: the options, or the whole vocabulary if they share one.

Over the options, each model uses its own spellings of the letters, so that any two models can teach each other.
Over the vocabulary, a token must have the same id in both: a `VocabMap` is the proof. Models are often padded to
more rows than there are tokens, each to another number (Qwen2.5-VL 3B to 151,936, 7B to 152,064). The logits of
both are cut to the existing tokens, and no model is padded or resized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import ConfigError, ModelError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class VocabMap:
    """Proof that models have the same token ids."""

    tokens: int
    """The number of tokens."""
    rows: Mapping[str, int]
    """The rows of each model's output layer; those beyond the tokens are cut off."""


def prove(tokens: Mapping[str, Mapping[str, int]], rows: Mapping[str, int], where: str) -> VocabMap:
    """The map of models by name, from their token ids and the rows of their output layers.

    Raises `ConfigError` if two models have different ids for a token, `ModelError` if a token has no row.
    """
    first, *others = tokens
    for name in others:
        if tokens[name] == tokens[first]:
            continue
        either = tokens[name].keys() | tokens[first].keys()
        differing = sorted(t for t in either if tokens[name].get(t) != tokens[first].get(t))
        raise ConfigError(
            f"{where}: compares vocabularies, but {len(differing)} of {len(either)} tokens, like {differing[0]!r}, "
            f"have different ids in rung {name!r} and rung {first!r}; compare the options "
            "(support = 'options'), or choose rungs with one tokenizer"
        )
    highest = max(tokens[first].values())
    for name, count in rows.items():
        if count <= highest:
            raise ModelError(
                f"{where}: rung {name!r} has an output layer of {count} rows, but its tokenizer has token ids up to "
                f"{highest}; expected a row for each: the folder's tokenizer is another model's"
            )
    return VocabMap(len(set(tokens[first].values())), dict(rows))
