"""ELM's toy of two vectors and two words: `python -m experiments.elm_toy --config=...`."""

from eagle_jax.base import command_line


def load():
    from eagle_jax.studies.elm_toy.run import ElmToySettings, run_elm_toy

    return ElmToySettings, run_elm_toy


if __name__ == "__main__":
    command_line.main(load, config="elm_toy")
