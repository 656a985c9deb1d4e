"""EAGLE, from ratings to report: `python -m experiments.eagle --config=... --workdir=...`."""

from eagle_jax.base import command_line
from eagle_jax.eagle.run import run_eagle
from eagle_jax.eagle.settings import EagleExperiment

if __name__ == "__main__":
    command_line.main(EagleExperiment, run_eagle, config="eagle_minilens")
