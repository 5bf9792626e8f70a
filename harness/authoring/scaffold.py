"""The template of `hkdbench new-method`: a working method, and its test."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from pathlib import Path

from harness.errors import ConfigError

METHOD = '''\
"""{title}: say here, in one line, what the method does; then give its formula.

L_S = CE(y, p_S) + weight * sum_k p_T[k] (log p_T[k] - log p_S[k]),   p = softmax over the answer options

A larger model (teacher T) is tuned on the labels. Then the student S learns from the labels and from the
teacher's answers. Change the stages, the settings and the loss below until they are your method.

    hkdbench check-method {name} --plugin {name}.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ConfigError, From, Ladder, Method, Role, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor  # torch itself is imported in the functions: listing methods must not load it


@dataclass(frozen=True)
class {cls}(Method):
    """{title}, in one sentence."""

    # Shown in the tables and by `hkdbench list methods`. `source` names the paper.
    name: ClassVar[str] = "{name}"
    summary: ClassVar[str] = "{title}: what it does, in a few words"
    source: ClassVar[str] = ""

    # The variants of `hkdbench ablate {name}`: a name, and the settings that differ.
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {{"without teacher": {{"weight": 0.0}}}}

    # A field is a setting: a type, a default, and a docstring that says what it does and where the default comes
    # from. Users write `--set settings.weight=0.5`.
    weight: float = 1.0
    """Weight of the teacher's answers relative to the labels; our choice."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1000:
            raise ConfigError(f"{name}: weight = {{self.weight}}: expected a number from 0 to 1000")

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """What is trained, in which order: first the teacher, then the student with it.

        `ladder` has the rungs, largest first. A role starts from a rung's weights, or from the weights that an
        earlier stage trained (`From`). The shares of the stages in which "student" learns must sum to 1.
        """
        tuned = Role(student, trainable=True)
        if not self.weight:  # a switched-off part costs nothing
            return [Stage("tune", {{"student": tuned}}, share=1.0)]
        larger = ladder[: ladder.index(student)]
        if not larger:
            raise ConfigError(f"{name}: no rung is larger than the student {{student!r}}: choose a smaller student")
        return [
            # tuning: cross-entropy on the labels, by the harness; `loss` isn't asked for it.
            Stage("teacher", {{"teacher": Role(larger[0], trainable=True)}}, share=1.0, tuning=True),
            Stage("distil", {{"teacher": Role(From("teacher", "teacher")), "student": tuned}}, share=1.0),
        ]

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """The named terms of each learner in this stage, each (B,): one number per example, not their mean.

        `step.forward(role)` returns the option logits (B, K), with gradient only for learners.
        """
        terms = {{"ce": self._ce(step, "student")}}
        if self.weight:
            student_bk = step.forward("student").log_softmax(-1)
            teacher_bk = step.forward("teacher").log_softmax(-1)
            # K is the largest number of options in the batch. Missing options have the logit -1e4: their
            # probability is 0, and step.options_bk says which exist.
            kl_bk = (teacher_bk.exp() * (teacher_bk - student_bk)).masked_fill(~step.options_bk, 0.0)
            terms["kd"] = self.weight * kl_bk.sum(-1)
        return {{"student": terms}}

    def _ce(self, step: Step, role: str) -> Tensor:
        from torch.nn.functional import cross_entropy

        # An example without a gold has the label -1: it adds nothing.
        return cross_entropy(step.forward(role), step.labels_b, ignore_index=-1, reduction="none")

    # Three more functions have a default, and can be overridden:
    #   augment(example, rng) -> Example     the training example in another form (use only rng for randomness)
    #   views(example) -> [Example, ...]     the variants of an example that the student answers at test time
    #   fuse(example, scores_vk) -> (K,)     one score per option from the views' log-probabilities
'''

TEST = '''\
"""{title} satisfies the contract, and computes its formula."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from harness.testing import METHOD_CHECKS, Case

CASE = Case("{name}", plugins=[str(Path(__file__).with_name("{name}.py"))])


@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check: str) -> None:
    METHOD_CHECKS[check](CASE)


def test_the_term_by_hand() -> None:
    """Replace this by your own numbers, small enough to check by hand."""
    tried = CASE.live[-1].step(CASE.examples[:1])  # one example with four options
    student, teacher = (tried.micro.forward(role)[0].softmax(-1).tolist() for role in ("student", "teacher"))
    by_hand = sum(t * (math.log(t) - math.log(s)) for s, t in zip(student, teacher, strict=True))
    assert tried.terms["student", "kd"].item() == pytest.approx(by_hand, rel=1e-3)
'''


def write(name: str, folder: Path, taken: Collection[str]) -> list[Path]:
    """Write the files of a new method to `folder`. Raises `ConfigError`; nothing is overwritten."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"method name {name!r}: expected lower-case letters, digits and _, a letter first, like my_method"
        )
    if name in taken:
        raise ConfigError(f"method {name!r} exists already: choose another name (`hkdbench list methods` shows all)")
    title = name.replace("_", " ").capitalize()
    words = {"name": name, "title": title, "cls": "".join(part.capitalize() for part in name.split("_"))}
    files = {folder / f"{name}.py": METHOD, folder / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already: choose another name or another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in files.items():
            path.write_text(template.format(**words), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error.strerror or error}; choose another with --out") from None
    return list(files)
