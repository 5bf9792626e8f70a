"""Shapes of images that a model doesn't take are told before training, with the example."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from harness.config import RunConfig, parse
from harness.execution.launch import launch
from harness.record import Record
from harness.store import Store
from harness.store.schemas import NoTableError
from helpers import families, rows


def ran(folder: Path, family: str, method: str = "finetune") -> Record:
    """A run of the rows on a model of the family."""
    table = {
        "method": method, "benchmark": "rows", "plugins": [str(Path(rows.__file__))], "data_dir": str(folder / "data"),
        "ladder": families.ladder(folder, S={"family": family, "more": "True False a square"}),
        "train": {"examples": 8, "batch_size": 4, "validations": 1}, "evaluate": {"resamples": 100},
        "cluster": {"workers": 0},
    }  # fmt: skip
    (record,) = launch([parse(RunConfig, table, "test")], Store(folder / "runs"), "test", lambda _: None)
    return record


@pytest.mark.parametrize("method", ["finetune", "zero_shot"])
@pytest.mark.parametrize("size", [(900, 4), (4, 900)])
def test_an_aspect_ratio_that_a_processor_refuses_names_the_example(
    size: tuple[int, int], method: str, tmp_path: Path
) -> None:
    paths = rows.write(tmp_path / "data")
    Image.new("RGB", size).save(paths[11])
    record = ran(tmp_path, "qwen2_5_vl", method)
    assert record.status == "failed"
    assert record.error is not None
    assert f"can't use the image of example 'r11', {paths[11]} of {size[0]} x {size[1]} px: " in record.error.message
    assert "aspect ratio must be smaller than 200" in record.error.message
    assert record.error.message.endswith("; crop or scale it, or leave the example out")
    with pytest.raises(NoTableError):  # nothing was trained
        Store(tmp_path / "runs").history(record.run_id)


@pytest.mark.parametrize("family", ["internvl", "gemma3"])
def test_unusual_shapes_that_a_family_takes_are_no_error(family: str, tmp_path: Path) -> None:
    paths = rows.write(tmp_path / "data")
    for path, size in ((paths[2], (900, 3)), (paths[5], (3, 900)), (paths[8], (1, 1))):
        Image.new("RGB", size).save(path)
    record = ran(tmp_path, family, "zero_shot")
    assert record.status == "done", record.error
