"""A lost connection is tried again, and nothing else."""

from __future__ import annotations

import pytest

from harness.buckets import failures


def test_only_a_lost_connection_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Exception | int] = [ConnectionResetError("reset"), TimeoutError("slow"), 7]

    def work() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert failures.persistently(work, "s3://x", (0.0, 0.0), "fetched again") == 7
    assert "s3://x: reset; fetched again in 0 s" in caplog.text
    answers += [PermissionError("no"), 7]
    with pytest.raises(PermissionError):
        failures.persistently(work, "s3://x", (0.0,))
    answers[:] = [ConnectionResetError("reset")] * 3
    with pytest.raises(ConnectionResetError):
        failures.persistently(work, "s3://x", (0.0,))
    assert len(answers) == 1
