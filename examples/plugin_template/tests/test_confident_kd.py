"""The package's own tests: the contract, the benchmark, and the weight by hand."""

from __future__ import annotations

import pytest
import torch
from hkdbench_stripes.shares import confidence
from hkdbench_stripes.stripes import Stripes

from harness.testing import METHOD_CHECKS, Case, assert_sound

CASE = Case("confident_kd")


@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check: str) -> None:
    METHOD_CHECKS[check](CASE)


def test_the_benchmark_is_sound() -> None:
    assert_sound(Stripes())


def test_only_a_sure_teacher_is_heard() -> None:
    probabilities_bk = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.4, 0.3]])
    assert confidence(probabilities_bk, 0.5).tolist() == pytest.approx([0.9, 0.5, 0.0])
