"""REAL, from prompts to report: `python -m experiments.real --config=... --workdir=...`."""

from eagle_jax.base import command_line


def load():
    from eagle_jax.real.run import run_real
    from eagle_jax.real.settings import RealExperiment

    return RealExperiment, run_real


if __name__ == "__main__":
    command_line.main(load, config="real_minilens")
