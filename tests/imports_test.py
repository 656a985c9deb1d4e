"""The laws of the house: who may import whom, how large a folder is, one name for one thing, no
code that nothing uses.

They are read from the sources with `ast`, so that an import inside a function counts too. Every
rule is a function of sources, {path: text}, so that a test can show it a house that breaks it.
"""

import ast
import functools
import re
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

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
    "pages",
)
# Beyond the order. ELM and REAL are papers of their own; what is no stage knows no work directory.
APART = {
    "real": f"{PACKAGE}.elm",
    **dict.fromkeys(
        ("data", "embeddings", "design", "language_model", "learning", "reports"), f"{PACKAGE}.base.work_directory"
    ),
}
# Programs, not libraries: only their own kind may import them, tests all, and benchmarks what tests play.
PROGRAMS = {"experiments": ("tests",), "launch": ("tests",), "benchmarks": ("tests",), "tests": ("benchmarks",)}
# What is imported first and the console script, which hands on to `experiments.cli`.
DOORS = (PACKAGE, f"{PACKAGE}.__main__")
VERTICALS, ROOMS = ("elm", "real", "eagle"), ("settings.py", "run.py", "report.py", "report.md")
MOST_MODULES = 15  # of a folder, those of its subfolders not counted

# Text encoders and decoders have their own.
SAME_NAME = {"ACTIVATIONS", "DTYPES", "Params", "attend"}
UNUSED: dict[str, str] = {}  # name -> why it is there nevertheless


@functools.cache
def sources() -> dict[str, str]:
    """Every module of the package and the programs."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for top in (PACKAGE, *PROGRAMS)
        for path in sorted((ROOT / top).rglob("*.py"))
    }


parse = functools.cache(ast.parse)


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(text: str, path: str) -> set[str]:
    """Every dotted name that the source imports, relative imports resolved."""
    found = set()
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from a import b` may name the module a.b or something inside a.
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int | None:
    """The position of a module's layer; None for the package itself and for other packages."""
    parts = module.split(".")
    if parts[0] != PACKAGE or len(parts) < 2 or module in DOORS:
        return None
    return LAYERS.index(parts[1])


def violations(files: dict[str, str]) -> list[str]:
    """Imports that break the law, one line each."""
    found = []
    for path, text in files.items():
        module = module_name(path)
        own = layer(module)
        apart = APART.get(LAYERS[own]) if own is not None else None
        for name in sorted(imported(text, path)):
            top = name.split(".")[0]
            if top in PROGRAMS and module.split(".")[0] not in (top, *PROGRAMS[top]) and module not in DOORS:
                found.append(f"{module} imports {name}")
            if own is not None and layer(name) is not None and layer(name) > own:
                found.append(f"{module} imports {name}, a layer above it")
            if apart and f"{name}.".startswith(f"{apart}."):
                found.append(f"{module} imports {name}, which it must not know")
    return found


def cycle(files: dict[str, str]) -> list[str]:
    """A chain of modules that import each other in a circle; empty when there is none."""
    modules = {module_name(path): imported(text, path) for path, text in files.items()}
    try:
        TopologicalSorter({name: found & modules.keys() - {name} for name, found in modules.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def crowded(files: dict[str, str]) -> list[str]:
    """Folders of the package with too many modules."""
    sizes = Counter(
        PurePosixPath(path).parent.as_posix()
        for path in files
        if path.startswith(f"{PACKAGE}/") and not path.endswith("/__init__.py")
    )
    return [f"{folder}: {size} modules" for folder, size in sizes.items() if size > MOST_MODULES]


def mentioned(node: ast.AST) -> set[str]:
    """Identifiers in the code, whatever they name."""
    return (
        {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        | {n.name for n in ast.walk(node) if isinstance(n, ast.alias)}
    )


def is_type_variable(node: ast.Assign | ast.AnnAssign) -> bool:
    return isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "TypeVar"


def defined(text: str) -> tuple[dict[str, set[str]], set[str]]:
    """What each name of a module mentions in its definition, and what all else mentions."""
    names, others = defaultdict(set), set()
    for node in parse(text).body:
        targets = []
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            targets = [node.name]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not is_type_variable(node):
            ends = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = [n.id for end in ends for n in ast.walk(end) if isinstance(n, ast.Name)]
        for name in targets:
            names[name] |= mentioned(node) - {name}
        if not targets and not isinstance(node, (ast.Import, ast.ImportFrom)):
            others |= mentioned(node)
    return names, others


def defined_twice(files: dict[str, str]) -> list[str]:
    """Public names that two modules of the package define."""
    places = defaultdict(list)
    for path, text in files.items():
        for name in defined(text)[0] if path.startswith(f"{PACKAGE}/") else ():
            places[name].append(module_name(path))
    return [
        f"{name}: {', '.join(found)}"
        for name, found in sorted(places.items())
        if len(found) > 1 and not name.startswith("_")
    ]


def unused(files: dict[str, str], docs: str) -> list[str]:
    """Names of the package that neither a program nor the code in `docs` reaches through others."""
    code = re.findall(r"```.*?```|`[^`]+`", docs, re.DOTALL)
    todo = {word for span in code for word in re.findall(r"\w+", span)}
    mentions = defaultdict(set)
    for path, text in files.items():
        top = path.split("/")[0]
        if top == PACKAGE and module_name(path) not in DOORS:
            names, others = defined(text)
            todo |= others
            for name, own in names.items():
                mentions[name] |= own
        elif top != "tests":
            todo |= mentioned(parse(text))
    reached = set()
    while todo:
        reached |= todo
        todo = {name for word in todo for name in mentions.get(word, ())} - reached
    return sorted(mentions.keys() - reached)


def missing_rooms(paths: set[str]) -> list[str]:
    wanted = {f"{PACKAGE}/{vertical}/{room}" for vertical in VERTICALS for room in ROOMS}
    return sorted(wanted - paths)


def test_every_folder_of_the_package_is_a_layer():
    folders = {path.parent for path in (ROOT / PACKAGE).rglob("*.py")} - {ROOT / PACKAGE}
    tops = {folder.relative_to(ROOT / PACKAGE).parts[0] for folder in folders}
    assert tops <= set(LAYERS)
    loose = [path.name for path in (ROOT / PACKAGE).glob("*.py")]
    assert sorted(loose) == ["__init__.py", "__main__.py"]


def test_the_law_holds():
    assert f"{PACKAGE}/base/work_directory.py" in sources()
    assert violations(sources()) == []


def test_nothing_imports_in_a_circle():
    assert cycle(sources()) == []


def test_no_room_is_named_after_nothing_and_none_is_crowded():
    vague = {"utils", "util", "common", "helpers", "misc"}
    assert [path for path in sources() if vague & set(module_name(path).split("."))] == []
    assert crowded(sources()) == []


def test_one_name_for_one_thing():
    found = {fault.partition(":")[0]: fault for fault in defined_twice(sources())}
    assert [fault for name, fault in found.items() if name not in SAME_NAME] == []


def test_nothing_is_there_that_nothing_uses():
    docs = "\n".join((ROOT / name).read_text() for name in ("README.md", "WORKSPACE.md"))
    assert set(unused(sources(), docs)) <= UNUSED.keys()


def test_each_paper_has_settings_a_run_and_a_report():
    paths = {path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.*")}
    assert missing_rooms(paths) == []


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        ("import a.b, c", "m.py", {"a.b", "c"}),
        ("from a.b import c", "m.py", {"a.b", "a.b.c"}),
        ("def f():\n from ..data import x", "eagle_jax/base/y.py", {"eagle_jax.data"}),
        ("from . import x", "eagle_jax/data/__init__.py", {"eagle_jax.data", "eagle_jax.data.x"}),
    ],
)
def test_imports_are_found(source, path, expected):
    assert expected <= imported(source, path)


def test_the_law_would_be_seen_broken():
    broken = {
        "eagle_jax/data/a.py": "import eagle_jax.design.b",
        "eagle_jax/base/c.py": "def f():\n    import experiments.configs.d",
        "experiments/e.py": "import experiments.configs.d, tests.conftest, eagle_jax.eagle.f",
        "eagle_jax/real/g.py": "from eagle_jax.elm import space",
        "eagle_jax/elm/h.py": "from eagle_jax import real",
        "eagle_jax/design/i.py": "from eagle_jax.base.work_directory import StageFolder",
        "eagle_jax/studies/j.py": "import eagle_jax.elm.run, eagle_jax.base.work_directory",
    }
    assert violations(broken) == [
        "eagle_jax.data.a imports eagle_jax.design.b, a layer above it",
        "eagle_jax.base.c imports experiments.configs.d",
        "experiments.e imports tests.conftest",
        "eagle_jax.real.g imports eagle_jax.elm, which it must not know",
        "eagle_jax.real.g imports eagle_jax.elm.space, which it must not know",
        "eagle_jax.elm.h imports eagle_jax.real, a layer above it",
        "eagle_jax.design.i imports eagle_jax.base.work_directory, which it must not know",
        "eagle_jax.design.i imports eagle_jax.base.work_directory.StageFolder, which it must not know",
    ]
    circle = {"a.py": "import b", "b.py": "import c, x", "c.py": "import a"}
    assert sorted(cycle(circle)[1:]) == ["a", "b", "c"]
    assert cycle(circle | {"c.py": ""}) == []


def test_a_crowd_a_double_an_orphan_and_a_missing_room_would_be_seen():
    many = {f"eagle_jax/data/m{number}.py": "" for number in range(15)}
    assert crowded(many | {"eagle_jax/data/__init__.py": "", "eagle_jax/data/b/c.py": ""}) == []
    assert crowded(many | {"eagle_jax/data/more.py": ""}) == ["eagle_jax/data: 16 modules"]

    house = {
        "eagle_jax/data/a.py": "T = TypeVar(0)\nRow = int\ndef read(): return _rows()\ndef _rows(): return Row",
        "eagle_jax/elm/b.py": "T = TypeVar(0)\nclass Row: pass\ndef _rows(): pass\nif True: Row()",
        "eagle_jax/elm/c.py": "def ask(): return told()\ndef told(): return ask()\nWORD = 1",
        "experiments/d.py": "from eagle_jax.data.a import read",
        "tests/e.py": "from eagle_jax.elm.c import ask",
    }
    assert defined_twice(house) == ["Row: eagle_jax.data.a, eagle_jax.elm.b"]
    assert unused(house, "of `WORD`, and told") == ["ask", "told"]
    rooms = {f"eagle_jax/{name}/{room}" for name in VERTICALS for room in ROOMS}
    assert missing_rooms(rooms - {"eagle_jax/real/run.py"}) == ["eagle_jax/real/run.py"]
