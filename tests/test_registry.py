"""The plug-in door: tables, files and modules; settings that are checked; digests of sources."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from harness import provenance, registry
from harness.api import Benchmark, Method
from harness.errors import ConfigError, DataError

METHOD = '''
from dataclasses import dataclass
from harness.api import Method

@dataclass(frozen=True)
class {cls}(Method):
    """A test's method."""

    weight: float = 1.0
    name = "{name}"
    summary = "made by a test"
'''


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts without plugins and leaves no module behind."""
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setattr(registry, "_problems", {})
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("acme", "hkdbench_plugin_")):
            del sys.modules[name]
    sys.path[:] = path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def install(site: Path, name: str, entry_points: str) -> None:
    """An installed distribution as the import system sees it: its metadata on `sys.path`."""
    write(site / f"{name}-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(site / f"{name}-1.0.dist-info" / "entry_points.txt", entry_points)
    if str(site) not in sys.path:
        sys.path.insert(0, str(site))


# ---------------------------------------------------------------------------------- entry points


def test_built_ins_are_listed_without_importing_them(root: Path) -> None:
    code = (
        "import sys; from harness import registry;"
        "assert {'zero_shot', 'finetune', 'offline_kd', 'hkd4vlm'} <= registry.methods().keys();"
        "assert {'scenes_hallucination', 'scenes_factuality', 'nlvr'} <= registry.benchmarks().keys();"
        "loaded = {n for n in sys.modules if n.split('.')[0] in ('methods', 'benchmarks', 'torch', 'ray')};"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_presets_are_names_for_settings() -> None:
    assert {"reverse_kl", "jsd", "skew_kl", "dkd"} <= registry.methods().keys()
    assert registry.make_method("dkd", {}) == registry.make_method("offline_kd", {"divergence": "dkd"})
    assert registry.resolve_preset("jsd", {"alpha": 2.0}) == ("offline_kd", {"divergence": "jsd", "alpha": 2.0})
    assert registry.resolve_preset("offline_kd", {"alpha": 2.0}) == ("offline_kd", {"alpha": 2.0})
    assert registry.resolve_preset("dkd", {"divergence": "dkd"}) == ("offline_kd", {"divergence": "dkd"})
    with pytest.raises(
        ConfigError, match=r"'dkd' is 'offline_kd' with divergence = 'dkd', not 'jsd'; leave divergence"
    ):
        registry.make_method("dkd", {"divergence": "jsd"})


def test_a_plugins_presets_are_offered_and_its_parents_are_not(tmp_path: Path) -> None:
    """A method that is built on another one must not take the other's presets' names."""
    text = (
        "from dataclasses import dataclass\nfrom methods.offline_kd import OfflineKD\n"
        "@dataclass(frozen=True)\nclass Acme(OfflineKD):\n    name = 'acme'\n    summary = 's'\n{}"
    )
    path = write(tmp_path / "acme.py", text.format("    presets = {'acme_hot': {'temperature': 8.0}}\n"))
    assert registry.load_plugin(str(path)) == ["acme", "acme_hot"]
    assert registry.make_method("acme_hot", {}).temperature == 8  # type: ignore[attr-defined]
    assert registry.load_plugin(str(write(tmp_path / "more.py", text.format("").replace("acme", "more")))) == ["more"]


def test_a_checkout_without_installation_offers_the_same(root: Path, tmp_path: Path) -> None:
    """As in a Ray job's working directory: only the files, in an interpreter that sees no site metadata."""
    unneeded = shutil.ignore_patterns("weights", "__pycache__")
    for part in ("harness", "methods"):
        shutil.copytree(root / part, tmp_path / part, ignore=unneeded)
    shutil.copy(root / "pyproject.toml", tmp_path)
    code = (
        "import importlib.metadata as m; m.entry_points = lambda **_: ();"
        "from harness import registry;"
        "print(sorted(registry.methods()), registry.methods()['finetune'].load().__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split("] ")[1].strip() == "Finetune"
    assert "'hkd4vlm'" in done.stdout


def test_an_installed_package_without_its_pyproject_uses_the_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "harness" / "registry.py"))
    install(tmp_path, "hkdbench", "[hkdbench.methods]\nacme = acme_methods:Acme\n")
    assert registry.methods()["acme"].origin == "hkdbench, acme_methods:Acme"
    # Somebody else's pyproject.toml in the same place isn't ours.
    write(tmp_path / "pyproject.toml", '[project]\nname = "other"\n')
    assert "acme" in registry.methods()


def test_what_is_installed_meanwhile_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is read once, and again after a change."""
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "harness" / "registry.py"))
    site, project = tmp_path / "site", tmp_path / "pyproject.toml"
    ours = '[project]\nname = "hkdbench"\n[project.entry-points."hkdbench.methods"]\n{} = "acme_methods:Acme"\n'

    def names(**mtimes: int) -> set[str]:
        for path, mtime in ((site, mtimes.get("site")), (project, mtimes.get("project"))):
            if mtime:  # a clock's tick may be longer than a test
                os.utime(path, ns=(mtime, mtime))
        return {name for name in registry.methods() if name.startswith("acme")}

    install(site, "acme", "[hkdbench.methods]\nacme_one = acme_methods:Acme\n")
    write(project, ours.format("acme_two"))
    assert names(site=10**18, project=10**18) == {"acme_one", "acme_two"}
    install(site, "acme_more", "[hkdbench.methods]\nacme_three = acme_methods:Acme\n")
    assert names(site=2 * 10**18) == {"acme_one", "acme_two", "acme_three"}
    write(project, ours.format("acme_four"))
    assert names(project=2 * 10**18) == {"acme_one", "acme_four", "acme_three"}


def test_a_checkout_and_its_own_metadata_are_one_list(tmp_path: Path) -> None:
    """Installed metadata of the same project, even stale, doubles nothing."""
    install(tmp_path, "hkdbench", "[hkdbench.methods]\nfinetune = gone.away:Finetune\n")
    assert registry.methods()["finetune"].target == "methods.finetune:Finetune"


def test_a_third_party_comes_through_the_same_door(tmp_path: Path) -> None:
    install(tmp_path, "acme", "[hkdbench.methods]\nacme_kd = acme_methods:Acme\n")
    write(tmp_path / "acme_methods.py", METHOD.format(cls="Acme", name="acme_kd"))
    assert registry.make_method("acme_kd", {"weight": 2.0}).name == "acme_kd"


def test_a_broken_third_party_is_named_and_stops_no_other(tmp_path: Path) -> None:
    table = "[hkdbench.methods]\nacme_kd = acme_good:Acme\nacme_bad = acme_bad:Acme\nacme_exit = acme_exit:Acme\n"
    install(tmp_path, "acme", table)
    write(tmp_path / "acme_good.py", METHOD.format(cls="Acme", name="acme_kd"))
    write(tmp_path / "acme_bad.py", "x = 1\nraise RuntimeError('no licence')\n")
    write(tmp_path / "acme_exit.py", "raise SystemExit(3)\n")
    entries = {name: e for name, e in registry.methods().items() if name.startswith("acme")}
    assert [name for name, _ in registry.load_all(entries)] == ["acme_kd"]
    assert {p.name for p in registry.problems()} == {"acme_bad", "acme_exit"}
    with pytest.raises(ConfigError, match=r"acme_bad \(acme, .*RuntimeError: no licence \(.*acme_bad.py:2\)"):
        registry.make_method("acme_bad", {})


def test_two_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    install(tmp_path, "acme", "[hkdbench.methods]\nfinetune = acme_methods:Acme\n")
    with pytest.raises(ConfigError, match=r"named 'finetune': hkdbench, methods.* and acme, acme_methods:Acme"):
        registry.methods()
    assert "nlvr" in registry.benchmarks()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("Acme = 3", "3 is not a Method"),
        (METHOD.format(cls="Acme", name="other"), "names itself 'other', its entry point 'acme_kd'"),
        (
            METHOD.format(cls="Acme", name="acme_kd").replace("@dataclass(frozen=True)", ""),
            "must be decorated",
        ),
        ("", "AttributeError"),
    ],
)
def test_an_entry_point_must_lead_to_a_method_of_its_name(tmp_path: Path, source: str, says: str) -> None:
    install(tmp_path, "acme", "[hkdbench.methods]\nacme_kd = acme_methods:Acme\n")
    write(tmp_path / "acme_methods.py", source)
    with pytest.raises(ConfigError, match=says):
        registry.methods()["acme_kd"].load()


# -------------------------------------------------------------------------------- files and modules


def test_a_file_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every named class it defines; not what it imports, not helpers without a name."""
    more = "\nfrom methods.finetune import Finetune\nclass Helper(Method): pass\n"
    more += METHOD.format(cls="Two", name="acme_two")
    path = write(tmp_path / "acme.py", METHOD.format(cls="One", name="acme_one") + more)
    monkeypatch.chdir(tmp_path)
    assert registry.load_plugin("acme.py") == ["acme_one", "acme_two"]
    assert registry.load_plugin(str(path)) == ["acme_one", "acme_two"]  # again: nothing new
    assert registry.plugins() == [str(path.resolve())]
    assert registry.make_method("acme_two", {}).summary == "made by a test"


def test_a_benchmark_file_is_a_plugin(tmp_path: Path) -> None:
    text = METHOD.format(cls="Acme", name="acme_bench").replace("Method", "Benchmark")
    registry.load_plugin(str(write(tmp_path / "acme.py", text)))
    assert registry.make_benchmark("acme_bench", {"weight": 0.5}).name == "acme_bench"
    assert "acme_bench" not in registry.methods()


def test_a_module_in_the_working_directory_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "acme_pkg" / "__init__.py", "")
    write(tmp_path / "acme_pkg" / "kd.py", METHOD.format(cls="Acme", name="acme_kd"))
    monkeypatch.chdir(tmp_path)
    assert registry.load_plugin("acme_pkg.kd") == ["acme_kd"]


def test_a_failing_plugin_is_reported_and_stops_no_other(tmp_path: Path) -> None:
    good = write(tmp_path / "good.py", METHOD.format(cls="Acme", name="acme_kd"))
    syntax = write(tmp_path / "syntax.py", "def\n")
    empty = write(tmp_path / "empty.py", "x = 1\n")
    missing = tmp_path / "missing.py"
    loaded = [registry.load_plugin(str(p)) for p in (syntax, empty, good, missing)]
    assert [*loaded, registry.load_plugin("acme_nowhere.kd")] == [[], [], ["acme_kd"], [], []]
    said = [str(p) for p in registry.problems()]
    assert [text.split(" ")[0] for text in said] == [str(syntax), str(empty), str(missing), "acme_nowhere.kd"]
    for text, expected in zip(said, ("SyntaxError", "defines no Method", "no such file", "No module"), strict=True):
        assert expected in text
    # Who asks for what that plugin should have brought learns why it isn't there.
    with pytest.raises(ConfigError, match=r"unknown method 'acme_lost'.*failed: .*syntax\.py.*SyntaxError"):
        registry.make_method("acme_lost", {})


def test_a_mended_plugin_can_be_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "acme.py", "raise ValueError('not yet')")
    assert registry.load_plugin(str(path)) == []
    write(path, METHOD.format(cls="Acme", name="acme_kd") + "# longer, so that no byte code is reused\n")
    assert registry.load_plugin(str(path)) == ["acme_kd"]
    assert registry.problems() == []


def test_a_plugin_may_not_take_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "acme.py", METHOD.format(cls="Acme", name="finetune"))
    with pytest.raises(ConfigError, match=r"'finetune': hkdbench, .* and plugin .*acme\.py, Acme"):
        registry.load_plugin(str(path))
    assert registry.make_method("finetune", {}).name == "finetune"  # the built-in is still there


def test_one_file_with_one_name_twice(tmp_path: Path) -> None:
    text = METHOD.format(cls="One", name="acme") + METHOD.format(cls="Two", name="acme")
    assert registry.load_plugin(str(write(tmp_path / "acme.py", text))) == []
    assert "two methods are named 'acme'" in registry.problems()[0].error


def test_another_process_loads_a_plugin_again(tmp_path: Path, root: Path) -> None:
    """What a Ray worker does: load the specs, then unpickle a method of the plugin."""
    registry.load_plugin(str(write(tmp_path / "acme.py", METHOD.format(cls="Acme", name="acme_kd"))))
    pickled = write(tmp_path / "method.txt", pickle.dumps(registry.make_method("acme_kd", {}), 0).decode("latin1"))
    code = (
        "import pickle, sys; from harness import registry; registry.load_plugin(sys.argv[1]);"
        "print(pickle.loads(open(sys.argv[2]).read().encode('latin1')))"
    )
    command = [sys.executable, "-c", code, *registry.plugins(), str(pickled)]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout == "Acme(weight=1.0)\n"


# ----------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Tuned(Method):
    """A method with a setting of each type."""

    rate: float = 0.1
    count: int = 3
    on: bool = True
    mode: Literal["fast", "slow"] = "fast"
    shifts: tuple[int, ...] = (0, 1)
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    rung: str | None = None
    weights: dict[str, float] = field(default_factory=dict)

    name: ClassVar[str] = "acme_tuned"
    summary: ClassVar[str] = "settings"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError(f"rate = {self.rate}: expected 0 or more")
        if self.count == 13:
            raise ValueError("13 is unlucky")


@dataclass(frozen=True)
class Files(Benchmark):
    """A benchmark with files and a setting that has no default."""

    size: int = field(kw_only=True)

    name: ClassVar[str] = "acme_files"
    needs_data_dir: ClassVar[bool] = True


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers this file's two classes."""
    found = registry._defined(sys.modules[__name__], "this test")
    monkeypatch.setattr(registry, "_plugins", {"this test": found})


@pytest.mark.usefixtures("offered")
def test_settings_of_every_type() -> None:
    given = {"rate": 1, "count": 4, "on": False, "mode": "slow", "shifts": [2, 1], "share": 1.0, "rung": "M"}
    method = registry.make_method("acme_tuned", {**given, "weights": {"ce": 2}})
    assert method == Tuned(1.0, 4, False, "slow", (2, 1), 1.0, "M", {"ce": 2.0})
    assert registry.make_method("acme_tuned", {}) == Tuned()


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rte": 0.1}, "unknown setting 'rte': did you mean 'rate'"),
        ({"rate": "high"}, "setting rate = 'high': expected a valid number"),
        ({"rate": "0.1"}, "setting rate = '0.1': expected a valid number"),  # no guessing from text
        ({"rate": True}, "setting rate = True: expected a valid number"),
        ({"count": 1.5}, "setting count = 1.5: expected a valid integer"),
        ({"count": True}, "setting count = True: expected a valid integer"),
        ({"on": 1}, "setting on = 1: expected a valid boolean"),
        ({"mode": "fats"}, "setting mode = 'fats': expected 'fast' or 'slow'"),
        ({"shifts": [0, "x"]}, r"setting shifts = \[0, 'x'\]: at 1: expected a valid integer"),
        ({"share": 1.2}, "setting share = 1.2: expected less than or equal to 1"),
        ({"rung": 3}, "setting rung = 3: expected a valid string"),
        ({"rate": {1, 2}}, "setting rate = .*not JSON serializable"),
        ({"rate": -1.0}, "rate = -1.0: expected 0 or more"),
        ({"count": 13}, "method 'acme_tuned': 13 is unlucky"),
        ({"name": "x"}, "unknown setting 'name'"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        registry.make_method("acme_tuned", settings)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offered")
def test_all_problems_are_told_one_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.make_method("acme_tuned", {"rte": 1, "count": "x", "mode": 1})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.usefixtures("offered")
def test_a_benchmark_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'acme_files' reads published files: .*--data-dir"):
        registry.make_benchmark("acme_files", {"size": 1})
    with pytest.raises(DataError, match="nowhere does not exist"):
        registry.make_benchmark("acme_files", {"size": 1}, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="setting 'size' is missing"):
        registry.make_benchmark("acme_files", {}, tmp_path)
    with pytest.raises(ConfigError, match="unknown setting 'data_dir'"):
        registry.make_benchmark("acme_files", {"size": 1, "data_dir": "x"}, tmp_path)
    monkeypatch.chdir(tmp_path)
    made = registry.make_benchmark("acme_files", {"size": 1}, ".")
    assert made.data_dir == tmp_path.resolve()  # workers have another working directory


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(ConfigError, match="unknown method 'fintune': did you mean 'finetune'"):
        registry.make_method("fintune", {})
    with pytest.raises(ConfigError, match="unknown benchmark 'nlvr2': did you mean 'nlvr'"):
        registry.make_benchmark("nlvr2", {})


# ------------------------------------------------------------------------------------------- digest


def digest_of(site: Path, spec: str) -> str:
    """The digest in a fresh interpreter, whose path starts with `site`."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from harness import provenance, registry;"
        "names = registry.load_plugin(sys.argv[2]); print(*registry.problems(), file=sys.stderr);"
        "print(provenance.source_digest(registry.methods()[names[0]].load()))"
    )
    root = Path(registry.__file__).parent.parent
    command = [sys.executable, "-B", "-c", code, str(site), spec]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_the_digest_follows_imports_within_the_package(tmp_path: Path) -> None:
    package = tmp_path / "acme_pkg"
    write(package / "__init__.py", "")
    write(package / "unrelated.py", "x = 1\n")
    losses = write(package / "losses.py", "from . import maths\n")
    maths = write(package / "maths.py", "two = 2\n")
    kd = write(package / "kd.py", "from acme_pkg.losses import maths\n" + METHOD.format(cls="A", name="acme_kd"))
    digests = [digest_of(tmp_path, "acme_pkg.kd")]
    write(package / "unrelated.py", "x = 2\n")
    assert digest_of(tmp_path, "acme_pkg.kd") == digests[0]
    for path in (kd, losses, maths):
        path.write_text(path.read_text() + "# changed\n")
        digests.append(digest_of(tmp_path, "acme_pkg.kd"))
    assert len(set(digests)) == 4


def test_the_digest_of_a_file_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    paths = [write(tmp_path / d / "acme.py", METHOD.format(cls="A", name="acme_kd")) for d in ("one", "two")]
    first, second = (digest_of(tmp_path, str(p)) for p in paths)
    assert first == second
    assert len(first) == 64


def test_the_digest_covers_parents(tmp_path: Path) -> None:
    """A method that extends another changes when that one does."""
    site = tmp_path
    base = write(site / "acme_base.py", METHOD.format(cls="Base", name="acme_base"))
    child = "from dataclasses import dataclass\nfrom acme_base import Base\n"
    child += "@dataclass(frozen=True)\nclass Child(Base):\n    name = 'acme_child'\n"
    path = write(site / "child.py", child)
    before = digest_of(site, str(path))
    base.write_text(base.read_text() + "# changed\n")
    assert digest_of(site, str(path)) != before


def test_the_digest_covers_modules_beside_a_file(tmp_path: Path) -> None:
    """Its folder is on no path; what it imports only when it is called counts too."""
    helper = write(tmp_path / "acme_helper.py", "weight = 1\n")
    late = write(tmp_path / "acme_late" / "maths.py", "two = 2\n")
    write(tmp_path / "acme_late" / "__init__.py", "")
    write(tmp_path / "acme_unrelated.py", "x = 1\n")
    source = "from acme_helper import weight\nimport random\ndef later():\n    from acme_late.maths import two\n"
    path = write(tmp_path / "kd.py", source + METHOD.format(cls="A", name="acme_kd"))
    digests = [digest_of(Path(), str(path))]
    write(tmp_path / "acme_unrelated.py", "x = 2\n")
    write(tmp_path / "random.py", "x = 2\n")  # Python's own is meant
    assert digest_of(Path(), str(path)) == digests[0]
    for changed in (helper, late, path):
        changed.write_text(changed.read_text() + "# changed\n")
        digests.append(digest_of(Path(), str(path)))
    assert len(set(digests)) == 4


def test_another_file_of_a_helpers_name_is_refused(tmp_path: Path) -> None:
    """Python imports a name once: the second plugin would silently run with the first one's helper."""
    for folder in ("one", "two"):
        write(tmp_path / folder / "acme_shared.py", f"folder = {folder!r}\n")
        write(tmp_path / folder / "kd.py", "import acme_shared\n" + METHOD.format(cls="A", name=f"acme_{folder}"))
        registry.load_plugin(str(tmp_path / folder / "kd.py"))
    try:
        assert len(provenance.source_digest(registry.methods()["acme_one"].load())) == 64
        with pytest.raises(ConfigError, match="imports 'acme_shared' and .*two.* lies beside it, but .*one"):
            provenance.source_digest(registry.methods()["acme_two"].load())
    finally:
        del sys.modules["acme_shared"]


def test_what_is_built_in() -> None:
    for entries in (registry.methods(), registry.benchmarks()):
        assert all(provenance.is_built_in(cls) for _, cls in registry.load_all(entries))
    assert not provenance.is_built_in(type("Mine", (Method,), {"__module__": "methods.mine"}))


def test_a_plugins_digest_is_of_its_own_code(tmp_path: Path) -> None:
    """Not of the built-in method that it builds on: a comment there doesn't train the plugin's runs again."""
    source = (
        "from dataclasses import dataclass\nfrom methods.offline_kd import OfflineKD\nfrom beside import x\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(OfflineKD):\n    name = 'acme_mine'\n    summary = 'a'\n"
        "    presets = {}\n"
    )
    file, beside = write(tmp_path / "acme_mine.py", source), write(tmp_path / "beside.py", "x = 1\n")
    assert registry.load_plugin(str(file)), registry.problems()
    try:
        found = provenance.source_digest(registry.methods()["acme_mine"].load())
        own = {"acme_mine": file.read_bytes(), "beside": beside.read_bytes()}
        assert found == provenance._digest(own)
    finally:
        del sys.modules["beside"]


def test_no_source_no_digest() -> None:
    typed = type("Typed", (Method,), {"__module__": "nowhere"})
    with pytest.raises(ConfigError, match="Typed has no source file"):
        provenance.source_digest(typed)
