"""The study of kept subsets: `python -m experiments.design_study --config=... --workdir=...`."""

import os
from pathlib import Path

# Before NumPy is imported: many small decompositions, which threads only hold up (ten times as long
# on a busy machine).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.studies.design_study.run import DesignStudySettings, run_design_study


def main(config: ConfigDict, workdir: Path) -> None:
    report = run_design_study(to_settings(DesignStudySettings, config.to_dict()), workdir)
    print(f"report: {report}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/design_study.py",
        default_workdir="runs/design_study",
    )
