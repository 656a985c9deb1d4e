"""The study of kept subsets: `python -m experiments.design_study --config=... --workdir=...`."""

import os

# Before NumPy is imported: many small decompositions, which threads only hold up (ten times as long
# on a busy machine).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from eagle_jax.base import command_line


def load():
    from eagle_jax.studies.design_study.run import DesignStudySettings, run_design_study

    return DesignStudySettings, run_design_study


if __name__ == "__main__":
    command_line.main(load, config="design_study")
