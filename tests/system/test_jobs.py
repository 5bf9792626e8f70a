"""`ray job submit` from a plain checkout to a real head, whose Python has the dependencies and not this package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.store import Store
from helpers import cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with every package that the tests' own has, but not this project's."""
    import ray

    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in Path(ray.__file__).parents[1].iterdir():
        if "hkdbench" not in path.name and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    python = folder / "bin" / "python"
    asked = subprocess.run([python, "-c", "import harness"], cwd=folder, capture_output=True, text=True)
    assert "No module named 'harness'" in asked.stderr
    return python


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project beside what must not be uploaded: more than Ray takes (100 MiB)."""
    folder = tmp_path_factory.mktemp("checkout") / "hkdbench"
    shutil.copytree(
        root, folder, ignore=shutil.ignore_patterns(".*_cache", "__pycache__", ".venv", ".git", "runs", ".hypothesis")
    )
    for name in (".venv/lib", ".git", "runs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "large").write_bytes(os.urandom(1 << 20) * 60)
    return folder


@pytest.fixture(scope="module")
def head(bare_python: Path) -> Iterator[cluster.Head]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV")}
    env |= {"PATH": f"{bare_python.parent}{os.pathsep}{env['PATH']}", "RAY_AUTH_MODE": "disabled"}
    env["RAY_JOB_STOP_WAIT_TIME_S"] = "60"  # as in deploy/: it kills after 3 s else, which a busy machine may pause
    with cluster.head(cpus=1, jobs=True, python=bare_python, env=env) as started:
        wait("the head's job agent", lambda: accepts(started))
        yield started


def accepts(head: cluster.Head) -> bool:
    """Whether the head takes a job: its agent may start a little later than itself."""
    from ray.job_submission import JobSubmissionClient

    try:
        return bool(JobSubmissionClient(head.jobs).submit_job(entrypoint="true"))
    except RuntimeError:
        return False


def submit(head: cluster.Head, checkout: Path, name: str, *args: object) -> subprocess.Popen[str]:
    """`ray job submit ... -- python -m harness ARGS...`, as docs/cluster.md has it."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", head.jobs]
    command += ["--working-dir", ".", "--submission-id", name, "--", "python", "-m", "harness", *map(str, args)]
    return subprocess.Popen(command, cwd=checkout, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait(what: str, true: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)


def test_a_job_is_followed_stopped_and_submitted_again(
    head: cluster.Head, checkout: Path, toy_suite: str, tmp_path: Path
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    runs = f'[[runs]]\nmethod = "slow"\nsettings = {{ folder = "{tmp_path}" }}\n'
    (checkout / "suites" / "job.toml").write_text(f'name = "job"\nseeds = [0]\n{toy_suite}{runs}')
    args = ["suite", "suites/job.toml", "--store", tmp_path / "store"]
    store = Store(tmp_path / "store")
    client = JobSubmissionClient(head.jobs)

    def statuses() -> list[str]:
        return [record.status for record in store.records() if record.kind == "run"]

    first = submit(head, checkout, "first", *args)
    wait("the run's middle", lambda: list(tmp_path.glob("pid-*")) or first.poll() is not None)
    assert first.poll() is None, first.communicate()
    workers = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]

    again = submit(head, checkout, "again", *args)  # the one CPU is taken
    wait("a word that it waits", lambda: "waiting for 1 CPUs (0 of 1 free)" in logs(client, "again"))

    client.stop_job("first")
    wait("the first job's end", lambda: client.get_job_status("first") == JobStatus.STOPPED)
    assert statuses() == ["interrupted"]
    said, _ = first.communicate(timeout=60)
    assert "interrupted; the same command continues from the last checkpoint" in said
    assert "Traceback" not in said
    wait("the workers' end", lambda: not any(psutil.pid_exists(pid) for pid in workers), 30)

    (tmp_path / "go").touch()
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    (record,) = (record for record in store.records() if record.kind == "run")
    assert (record.status, record.provenance.resumed) == ("done", 1)
    lines = said.splitlines()
    assert any(line.startswith("began  slow-") for line in lines)
    assert any(line.startswith("done   slow-") and line.endswith("(1/1)") for line in lines)
    assert "hkdbench rank" in said
    assert not {"\x1b", "\r"} & set(logs(client, "again"))


def test_a_jobs_exit_code_is_the_commands(head: cluster.Head, checkout: Path) -> None:
    """Here for a store in the job's own folder, which nobody would ever see again."""
    from ray.job_submission import JobSubmissionClient

    said = submit(head, checkout, "lost", "run", "--method", "finetune", "--benchmark", "scenes_factuality")
    out, _ = said.communicate(timeout=300)
    assert said.returncode == 1
    assert "runs' is in the Ray job's copy of the code, which Ray deletes after the job: give --store" in out
    assert "Traceback" not in out
    assert JobSubmissionClient(head.jobs).get_job_info("lost").driver_exit_code == 2


def logs(client: Any, job: str) -> str:
    try:
        return str(client.get_job_logs(job))
    except RuntimeError:  # it isn't there yet
        return ""
