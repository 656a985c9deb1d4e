"""CAVs against raters' orderings of films: `python -m experiments.soft_attributes`."""

from eagle_jax.base import command_line


def load():
    from eagle_jax.studies.soft_attributes.run import SoftAttributesExperiment, run_soft_attributes

    return SoftAttributesExperiment, run_soft_attributes


if __name__ == "__main__":
    command_line.main(load, config="soft_attributes")
