"""docs/reference says what the code says, and an option, setting or name of the API without a text is refused."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field


@pytest.fixture
def scripts(root: object, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(root))
    names = ("reference", "reference_cli", "reference_settings", "reference_api")
    return {name: importlib.import_module(f"scripts.{name}") for name in names}


class Oven(BaseModel):
    """Settings of the test."""

    lr: float = Field(0.5, gt=0)
    """How hot."""
    mode: Literal["grill", "bake"] | None = None
    """How it heats."""
    seed: int = 3
    names: dict[str, tuple[int, ...]] = Field({}, description="By shelf.")
    heat: float = 1.0
    """Has no unit."""


def test_settings(scripts: dict[str, ModuleType]) -> None:
    settings = scripts["reference_settings"]

    def row(name: str) -> str:
        return str(settings.row(Oven, name, Oven.model_fields[name]))

    assert row("lr") == "| `lr` | number, above 0 | `0.5` | learning rate | How hot. |"
    assert row("mode") == "| `mode` | `grill`, `bake` | unset |  | How it heats. |"
    assert row("seed") == "| `seed` | integer | `3` |  | Of weights, order and draws. |"  # as a run's
    assert settings.values(Oven.model_fields["names"].annotation) == "table of list of integer"
    with pytest.raises(ValueError, match="Oven.heat: a number without a unit"):
        row("heat")
    with pytest.raises(ValueError, match="Oven.names: a number without a unit"):
        row("names")


def test_options(scripts: dict[str, ModuleType]) -> None:
    app = typer.Typer()

    @app.command("bake")
    def bake(
        what: Annotated[str, typer.Argument(help="A | B.")],
        mode: Annotated[Literal["a", "b"], typer.Option(help="How.")] = "a",
        times: Annotated[int, typer.Option(min=1, help="How often.")] = 2,
        silent: bool = False,
    ) -> None:
        """Bake. Twice."""

    page = scripts["reference_cli"]
    command = typer.main.get_command(app)
    rows = [page.row(one) for one in command.params[:3]]
    assert rows == [
        "| `WHAT` | TEXT | required | A \\| B. |",
        "| `--mode` | a or b | `a` | How. |",
        "| `--times` | INTEGER from 1 | `2` | How often. |",
    ]
    assert page.usage(["bake"], command) == "hkdbench bake WHAT [OPTIONS]"
    with pytest.raises(ValueError, match="an option without a text"):
        page.row(command.params[3])
    assert page.first_sentence("Data, loss, ... Stores\nnothing. More.") == "Data, loss, ... Stores nothing."


def test_api(scripts: dict[str, ModuleType]) -> None:
    text = scripts["reference_api"].page()
    assert "#### Step.forward\n\n```python\nforward(self, role: str, view: View='first') -> Tensor\n```" in text
    assert "| `two_workers` | Two workers of 3 and 2 examples" in text
    with pytest.raises(ValueError, match="Nothing is defined in none of api.py"):
        scripts["reference_api"].found("Nothing", [scripts["reference_api"].HARNESS / "api.py"])
