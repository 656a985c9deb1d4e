"""`python -m eagle_jax` and the console script `eagle-jax`; commands are in `experiments.cli`."""

import importlib.util
import sys
from pathlib import Path


def hand_on() -> None:
    """Finds the programs, which lie in a package of their own, and hands on to them."""
    found = importlib.util.find_spec("experiments")
    places = [] if found is None else list(found.submodule_search_locations or [found.origin])
    if places and not Path(places[0], "cli.py").is_file():
        print(
            f"eagle-jax: {places[0]} is another package of the name experiments, and comes first "
            "on the path: take it off PYTHONPATH, or use an environment without it",
            file=sys.stderr,
        )
        sys.exit(2)
    from experiments.cli import main

    main()


if __name__ == "__main__":
    hand_on()
