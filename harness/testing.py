"""For the tests of your own methods and benchmarks: the checks of `hkdbench check-method`, one by one.

    from harness.testing import METHOD_CHECKS, Case

    CASE = Case("my_method", plugins=["my_method.py"])

    @pytest.mark.parametrize("check", METHOD_CHECKS)
    def test_contract(check):
        METHOD_CHECKS[check](CASE)

A check that fails raises `Broken` (an `AssertionError`) that says what to change. `assert_sound(benchmark)` does the
same for a benchmark.
"""

from harness.authoring.benchmark_checks import assert_sound
from harness.authoring.method_checks import CHECKS as METHOD_CHECKS
from harness.authoring.method_checks import Broken, Case

__all__ = ["METHOD_CHECKS", "Broken", "Case", "assert_sound"]
