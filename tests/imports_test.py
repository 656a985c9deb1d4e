"""The layer law: a module imports its own layer or one to the left, and nothing imports the top.

The law is read from the sources with `ast`, so that an import inside a function counts too.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "eagle_jax"
LAYERS = (
    "base",
    "data",
    "embeddings",
    "design",
    "language_model",
    "learning",
    "reports",
    "stages",
    "elm",
    "real",
    "eagle",
    "studies",
)
# Programs, not libraries: only their own kind may import them.
PROGRAMS = ("experiments", "launch", "benchmarks", "tests")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """Every dotted name that the source imports, relative imports resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = len(parts) - node.level + is_package
                base = ".".join([*parts[:kept], *([node.module] if node.module else [])])
            # `from a import b` may name the module a.b or something inside a.
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def sources(root: Path) -> dict[str, set[str]]:
    """Module name -> what it imports, for the package and the programs."""
    found = {}
    for top in (PACKAGE, *PROGRAMS):
        for path in sorted((root / top).rglob("*.py")):
            name = module_name(path, root)
            found[name] = imported(path.read_text(), name, path.name == "__init__.py")
    return found


def layer(module: str) -> int | None:
    """The position of a module's layer; None for the package itself and for other packages."""
    parts = module.split(".")
    if parts[0] != PACKAGE or len(parts) < 2:
        return None
    return LAYERS.index(parts[1])


def violations(modules: dict[str, set[str]]) -> list[str]:
    """What breaks the law, one line each."""
    found = []
    for module, names in modules.items():
        for name in names:
            top = name.split(".")[0]
            if top in PROGRAMS and module.split(".")[0] not in (top, "tests"):
                found.append(f"{module} imports {name}")
            if (
                layer(module) is not None
                and layer(name) is not None
                and layer(name) > layer(module)
            ):
                found.append(f"{module} imports {name}, a layer above it")
    return found


def cycle(modules: dict[str, set[str]]) -> list[str]:
    """A chain of modules that import each other in a circle; empty when there is none."""
    done, chain = set(), []

    def visit(module: str) -> list[str]:
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module in done:
            return []
        chain.append(module)
        for name in sorted(modules[module] & modules.keys() - {module}):
            if circle := visit(name):
                return circle
        chain.pop()
        done.add(module)
        return []

    return next((circle for module in sorted(modules) if (circle := visit(module))), [])


def test_every_folder_of_the_package_is_a_layer():
    folders = {path.parent for path in (ROOT / PACKAGE).rglob("*.py")} - {ROOT / PACKAGE}
    tops = {folder.relative_to(ROOT / PACKAGE).parts[0] for folder in folders}
    assert tops <= set(LAYERS)
    loose = [path.name for path in (ROOT / PACKAGE).glob("*.py")]
    assert loose == ["__init__.py"]


def test_the_law_holds():
    modules = sources(ROOT)
    assert f"{PACKAGE}.base.work_directory" in modules
    assert violations(modules) == []


def test_nothing_imports_in_a_circle():
    assert cycle(sources(ROOT)) == []


def test_no_room_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "misc"}
    assert [name for name in sources(ROOT) if vague & set(name.split("."))] == []


@pytest.mark.parametrize(
    ("source", "module", "is_package", "expected"),
    [
        ("import a.b, c", "m", False, {"a.b", "c"}),
        ("from a.b import c", "m", False, {"a.b", "a.b.c"}),
        ("def f():\n from ..data import x", "eagle_jax.base.y", False, {"eagle_jax.data"}),
        ("from . import x", "eagle_jax.data", True, {"eagle_jax.data", "eagle_jax.data.x"}),
    ],
)
def test_imports_are_found(source, module, is_package, expected):
    assert expected <= imported(source, module, is_package)


def test_the_law_would_be_seen_broken():
    broken = {
        "eagle_jax.data.a": {"eagle_jax.design.b"},
        "eagle_jax.base.c": {"experiments.configs.d"},
        "experiments.e": {"experiments.configs.d", "tests.conftest", "eagle_jax.eagle.f"},
    }
    assert violations(broken) == [
        "eagle_jax.data.a imports eagle_jax.design.b, a layer above it",
        "eagle_jax.base.c imports experiments.configs.d",
        "experiments.e imports tests.conftest",
    ]
    assert cycle({"a": {"b"}, "b": {"c", "x"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
