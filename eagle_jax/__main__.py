"""`python -m eagle_jax` and the console script `eagle-jax`; commands are in `experiments.cli`."""

import importlib.util
import sys


def hand_on() -> None:
    """Finds the programs, which lie in a package of their own, and hands on to them."""
    try:
        from experiments.cli import main as command_line
    except ModuleNotFoundError as error:
        found = importlib.util.find_spec("experiments")
        if found is None or not (error.name or "").startswith("experiments"):
            raise
        places = list(found.submodule_search_locations or [found.origin])
        print(
            f"eagle-jax: {places[0]} is another package of the name experiments, and comes first "
            "on the path: take it off PYTHONPATH, or use an environment without it",
            file=sys.stderr,
        )
        sys.exit(2)
    command_line()


if __name__ == "__main__":
    hand_on()
