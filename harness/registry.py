"""The registry of plugins: methods and benchmarks by name, from entry points, files and modules.

Built-ins use the same entry-point groups as third-party plugins: `hkdbench.methods` and `hkdbench.benchmarks`.
In a checkout (installed or not, also in a Ray job's working directory) they are read from the `pyproject.toml`
beside this package, so that they always match the code that runs. Listing the names imports nothing; a class is
imported when it is loaded. This module imports neither torch nor ray.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import pkgutil
import sys
import tomllib
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar

from harness.api import Benchmark, Method
from harness.config import data_folder
from harness.errors import ConfigError, DataError, UserError, near
from harness.images import remote
from harness.paths import cache_folder, expanded
from harness.settings import build

DISTRIBUTION = "hkdbench"
Kind = Literal["method", "benchmark"]
T = TypeVar("T", Method, Benchmark)

_GROUPS: dict[Kind, str] = {"method": "hkdbench.methods", "benchmark": "hkdbench.benchmarks"}
_BASES: dict[Kind, type] = {"method": Method, "benchmark": Benchmark}


@dataclass(frozen=True)
class Registered(Generic[T]):
    """A registered name. `load()` imports its class, and raises `ConfigError` if that fails.

    `origin` says where the name comes from; `target` is its `module:Class`.
    """

    name: str
    origin: str
    target: str
    load: Callable[[], type[T]]


@dataclass(frozen=True)
class PluginProblem:
    """A plugin that could not be imported: its name (or spec), where it comes from, and the error."""

    name: str
    origin: str
    error: str

    def __str__(self) -> str:
        return f"{self.name} ({self.origin}): {self.error}"


_plugins: dict[str, list[tuple[Kind, Registered[Any]]]] = {}
_problems: dict[tuple[str, str], PluginProblem] = {}


# -------------------------------------------------------------------------------------------- listing


def methods() -> dict[str, Registered[Method]]:
    """All methods by name, without importing them. Raises `ConfigError` if two have the same name."""
    return _entries("method")


def benchmarks() -> dict[str, Registered[Benchmark]]:
    """All benchmarks by name, without importing them. Raises `ConfigError` if two have the same name."""
    return _entries("benchmark")


def load_all(entries: Mapping[str, Registered[T]]) -> Iterator[tuple[str, type[T]]]:
    """The classes of the entries that can be imported. Failures are recorded in `problems()`."""
    for name, entry in entries.items():
        try:
            loaded = entry.load()
        except ConfigError:
            continue
        yield name, loaded


def problems() -> list[PluginProblem]:
    """The plugins that failed to load so far, each with its error."""
    return list(_problems.values())


def plugins() -> list[str]:
    """The specs given to `load_plugin`, with absolute paths. A Ray worker loads the plugins from them again."""
    return list(_plugins)


def _entries(kind: Kind) -> dict[str, Registered[Any]]:
    found: dict[str, Registered[Any]] = {}
    for entry in (*_from_tables(kind), *(e for es in _plugins.values() for k, e in es if k == kind)):
        first = found.setdefault(entry.name, entry)
        if first.target != entry.target:
            raise ConfigError(
                f"two {kind}s are named {entry.name!r}: {first.origin} and {entry.origin}; rename one, or leave one out"
            )
    return found


def _from_tables(kind: Kind) -> Iterator[Registered[Any]]:
    ours = _checkout_table(_GROUPS[kind])
    for name, target in sorted(ours.items()):
        yield _entry(kind, name, DISTRIBUTION, target)
    for name, owner, target in _installed(_GROUPS[kind], tuple((path, _changed(path)) for path in sys.path)):
        if not (ours and owner == DISTRIBUTION):
            yield _entry(kind, name, owner, target)


@lru_cache(maxsize=8)
def _installed(group: str, state: tuple[tuple[str, int], ...]) -> list[tuple[str, str, str]]:
    """Name, package and target of all installed entry points; read again when a folder of `sys.path` has changed."""
    points = sorted(entry_points(group=group))
    return [(point.name, point.dist.name if point.dist else "an unnamed package", point.value) for point in points]


def _checkout_table(group: str) -> dict[str, str]:
    """The entry points in the `pyproject.toml` beside this package; empty if there is none or if it isn't ours."""
    path = str(Path(__file__).resolve().parent.parent / "pyproject.toml")
    project = _project(path, _changed(path))
    if project.get("name") != DISTRIBUTION:
        return {}
    table: dict[str, str] = project.get("entry-points", {}).get(group, {})
    return table


@lru_cache(maxsize=8)
def _project(path: str, state: int) -> dict[str, Any]:
    """The `[project]` table of a file; read again when it has changed."""
    if not Path(path).is_file():
        return {}
    table: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("project", {})
    return table


def _changed(path: str) -> int:
    """When a file or folder was last changed; 0 if it doesn't exist."""
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def _entry(kind: Kind, name: str, owner: str, target: str) -> Registered[Any]:
    origin = f"{owner}, {target}"

    def load() -> type[Any]:
        try:
            module, _, attribute = target.partition(":")
            loaded = getattr(importlib.import_module(module.strip()), attribute.strip())
            _check_class(kind, name, loaded)
        except (Exception, SystemExit) as error:
            problem = _report(name, origin, error)
            raise ConfigError(f"{kind} {problem}") from error
        return typing.cast("type[Any]", loaded)

    return Registered(name=name, origin=origin, target=target, load=load)


def _report(name: str, origin: str, error: BaseException) -> PluginProblem:
    text = " ".join(str(error).split())
    if not isinstance(error, UserError):
        frames = traceback.extract_tb(error.__traceback__)
        # The last frame of the plugin's own code, not of the import system.
        where = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
        text = f"{type(error).__name__}: {text}"
        if where:
            text += f" ({where[-1].filename}:{where[-1].lineno})"
    problem = PluginProblem(name, origin, text)
    _problems[name, origin] = problem
    return problem


def _check_class(kind: Kind, name: str, loaded: object) -> None:
    base = _BASES[kind]
    if not (inspect.isclass(loaded) and issubclass(loaded, base)):
        raise ConfigError(f"{loaded!r} is not a {base.__name__}")
    if "__dataclass_fields__" not in vars(loaded):
        raise ConfigError(f"class {loaded.__name__} must be decorated with @dataclass(frozen=True)")
    own = getattr(loaded, "name", None)
    if own != name and name not in vars(loaded).get("presets", ()):
        raise ConfigError(f"class {loaded.__name__} names itself {own!r}, its entry point {name!r}")


# -------------------------------------------------------------------------------- files and modules


def load_plugin(spec: str) -> list[str]:
    """Register every named method and benchmark that a file (`x.py`), a module (`a.b`) or a folder's files define.

    Returns their names. A plugin that fails to import, or that defines nothing, is recorded in `problems()`, and the
    result is []. Loading a spec again does nothing. Raises `ConfigError` if a name is already taken.
    """
    spec = absolute(spec)
    if spec not in _plugins:
        try:
            found = _defined(_modules(spec), f"plugin {spec}")
        except (Exception, SystemExit) as error:
            _report(spec, "plugin", error)
            return []
        _problems.pop((spec, "plugin"), None)
        _plugins[spec] = found
        try:
            for kind, _ in found:
                _entries(kind)
        except ConfigError:
            del _plugins[spec]
            raise
    return [entry.name for _, entry in _plugins[spec]]


def absolute(spec: str) -> str:
    """A plugin's spec for any working directory: the absolute path of a file or folder; a module's name as it is."""
    path = expanded(spec)
    bare = path.is_dir() and not (path / "__init__.py").is_file()  # a package in the working directory is importable
    return str(path.resolve()) if spec.endswith(".py") or "/" in spec or "\\" in spec or bare else spec


def _modules(spec: str) -> list[ModuleType]:
    """The modules of a plugin. Of a folder they are those in it, but for tests, unless its package offers plugins."""
    path = Path(spec)
    if path.is_absolute() and not path.is_dir():
        return [_import_file(path)]
    if path.is_absolute() and not (path / "__init__.py").is_file():
        if not (names := [name for name in _names([spec]) if (path / f"{name}.py").is_file()]):
            inside = [f", or {file.parent}" for file in sorted(path.glob("*/__init__.py"))]
            raise ConfigError(f"expected a folder with Python files{''.join(inside[:1])}")
        return [_import_file(path / f"{name}.py") for name in names]
    module = _import_package(path) if path.is_absolute() else _import_module(spec)
    if any(_classes(module)) or not hasattr(module, "__path__"):
        return [module]
    return [importlib.import_module(f"{module.__name__}.{name}") for name in _names(module.__path__)]


def _names(folders: Iterable[str]) -> list[str]:
    found = [one.name for one in pkgutil.iter_modules(folders)]
    return [name for name in found if not name.startswith(("test_", "conftest", "setup", "__"))]


class _Beside(importlib.abc.MetaPathFinder):
    """Finds the modules beside file plugins, after all other finders; a folder without `__init__.py` is no package."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def add(self, folder: Path) -> None:
        if self not in sys.meta_path:
            sys.meta_path.append(self)
        if str(folder) not in self.folders:
            self.folders.append(str(folder))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, self.folders) if path is None else None
        return spec if spec is not None and spec.loader is not None else None


_beside = _Beside()


def _import_module(name: str) -> ModuleType:
    # The `hkdbench` script, unlike `python -m harness`, doesn't have the working directory on its path.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return importlib.import_module(name)


def _import_package(folder: Path) -> ModuleType:
    _beside.add(folder.parent)
    module = importlib.import_module(folder.name)
    if Path(module.__file__ or "").parent != folder:
        raise ConfigError(f"Python imports {folder.name!r} from {module.__file__}: rename the folder")
    return module


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError("no such file: expected a Python file, a folder of them or the name of an importable module")
    # The module's name includes the path's hash: files with the same stem stay apart, and pickled classes are found.
    name = f"hkdbench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    _beside.add(path.parent)
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ConfigError("not a Python file: expected a name that ends in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _giving(cls: type[Any]) -> Callable[[], type[Any]]:
    return lambda: cls


def _classes(module: ModuleType) -> Iterator[type[Any]]:
    """The plugins that a module (or its package) defines; a class without its own `name` is a helper."""
    own = [cls for cls in vars(module).values() if inspect.isclass(cls) and "name" in vars(cls)]
    for cls in own:
        if issubclass(cls, Method | Benchmark) and f"{cls.__module__}.".startswith(f"{module.__name__}."):
            yield cls


def _defined(modules: Sequence[ModuleType], origin: str) -> list[tuple[Kind, Registered[Any]]]:
    found: dict[tuple[str, str], tuple[Kind, Registered[Any]]] = {}
    for cls in (cls for module in modules for cls in _classes(module)):
        kind: Kind = "method" if issubclass(cls, Method) else "benchmark"
        name = vars(cls)["name"]
        _check_class(kind, name, cls)
        target = f"{cls.__module__}:{cls.__qualname__}"
        for offered in (name, *vars(cls).get("presets", ())):
            entry = Registered(offered, f"{origin}, {cls.__qualname__}", target, _giving(cls))
            found[offered, target] = (kind, entry)
    if not found:
        raise ConfigError("defines no Method or Benchmark with a `name` of its own")
    taken: dict[tuple[Kind, str], Registered[Any]] = {}
    for kind, entry in found.values():
        first = taken.setdefault((kind, entry.name), entry)
        if first is not entry:
            raise ConfigError(f"two {kind}s are named {entry.name!r}: {first.target} and {entry.target}")
    return list(found.values())


# ----------------------------------------------------------------------------------------- building


def resolve_preset(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method that `name` stands for, with its settings. A preset is another name for some settings of a method.

    Raises `ConfigError` for an unknown name, and for a setting that contradicts the preset.
    """
    cls = _get("method", methods(), name)
    preset = cls.presets.get(name, {})
    for key, value in preset.items():
        if settings.get(key, value) != value:
            raise ConfigError(
                f"method {name!r} is {cls.name!r} with {key} = {value!r}, not {settings[key]!r}; "
                f"leave {key} out, or choose {cls.name!r}"
            )
    return cls.name, {**preset, **settings}


def make_method(name: str, settings: Mapping[str, Any]) -> Method:
    """The method (or preset) `name` with these settings. Raises `ConfigError` that lists everything that is wrong."""
    _, settings = resolve_preset(name, settings)
    return build(_get("method", methods(), name), f"method {name!r}", settings, {})


def make_benchmark(name: str, settings: Mapping[str, Any], data_dir: str | Path | None = None) -> Benchmark:
    """The benchmark `name` with these settings. It reads from `data_dir` if it reads files.

    A benchmark with a setting `repo` may read from that repository instead. Raises `ConfigError` for invalid
    settings, and `DataError` for a missing folder.
    """
    cls = _get("benchmark", benchmarks(), name)
    folder = None
    if cls.needs_data_dir and data_dir is None:
        online = any(f.name == "repo" for f in dataclasses.fields(cls))
        if not (online and settings.get("repo")):
            other = ", or a repository with --set benchmark_settings.repo=OWNER/NAME" if online else ""
            raise ConfigError(f"benchmark {name!r} reads published files: give their folder with --data-dir{other}")
    elif cls.needs_data_dir and data_dir is not None:
        where = data_folder(data_dir)  # absolute: workers have another working directory
        folder = where if isinstance(where, Path) else remote.folder_of(where, cache_folder())
        if not folder.is_dir():
            raise DataError(f"benchmark {name!r}: data folder {folder} does not exist or is not a folder")
    return build(cls, f"benchmark {name!r}", settings, {"data_dir": folder})


def _get(kind: Kind, entries: Mapping[str, Registered[T]], name: str) -> type[T]:
    if name not in entries:
        failed = "".join(f"; failed: {p}" for p in problems() if p.origin == "plugin")
        raise ConfigError(f"unknown {kind} {name!r}: {near(name, entries)}{failed}")
    return entries[name].load()
