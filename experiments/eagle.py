"""EAGLE, from ratings to report: `python -m experiments.eagle --config=... --workdir=...`."""

from eagle_jax.base import command_line


def load():
    from eagle_jax.eagle.run import EagleExperiment, run_eagle

    return EagleExperiment, run_eagle


if __name__ == "__main__":
    command_line.main(load, config="eagle_minilens", stops=("ceiling",))
