"""PAL, CIPHER and CHES on users of known taste: `python -m experiments.people --workdir=...`."""

from eagle_jax.base import command_line


def load():
    from eagle_jax.studies.people.run import PeopleExperiment, run_people

    return PeopleExperiment, run_people


if __name__ == "__main__":
    command_line.main(load, config="people_minilens")
