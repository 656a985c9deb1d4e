"""REAL, from prompts to report: `python -m experiments.real --config=... --workdir=...`."""

from eagle_jax.base import command_line
from eagle_jax.real.run import run_real
from eagle_jax.real.settings import RealExperiment

if __name__ == "__main__":
    command_line.main(RealExperiment, run_real, config="real_minilens")
