"""Learning from people: PAL's rewards of pairs, CIPHER's preferences of edits, DPO without alike pairs.

Stages `pair_rewards` and `edits`, and in the folder `dpo` the stages of a REAL run; each is skipped when
its folder is there and made of the same settings.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.reports.pages import shared_fields
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.stages.models import load_features
from eagle_jax.stages.run import Run
from eagle_jax.studies.people.alike_pairs import AlikePairSettings, AlikePairsRun
from eagle_jax.studies.people.edit_rounds import EditSettings, measure_edits
from eagle_jax.studies.people.pair_rewards import (
    READ_SLOTS,
    STATES,
    PairRewardSettings,
    measure_pair_rewards,
    slot_features,
    unit_variance,
)
from eagle_jax.studies.people.report import PeopleReport, write_people_report
from eagle_jax.studies.people.summaries import summarize_alike_pairs, summarize_edits, summarize_pair_rewards
from eagle_jax.studies.people.tastes import draw_people


@settings
class PeopleExperiment:
    """Three ways to learn from people, on users of known taste."""

    title: str = setting("Of the report.")
    seed: int = setting("Of users, films and what they say; the REAL run has its own.", at_least=0)
    pair_rewards: PairRewardSettings
    edits: EditSettings
    alike_pairs: AlikePairSettings
    bootstrap: BootstrapSettings = setting("Over users; of the policies intervals are over seeds.")


def run_people(experiment: PeopleExperiment, workdir: Path) -> Path:
    """Runs what is not done yet and returns the path of report.html."""
    run = _PeopleRun(experiment, workdir)
    pair_rewards, edits = run.pair_rewards(), run.edits()
    dpo = AlikePairsRun(experiment.alike_pairs.real, workdir / "dpo").measure(experiment.alike_pairs.kept_share)
    bootstrap = experiment.bootstrap
    report = PeopleReport(
        **shared_fields(experiment),
        **dataclasses.asdict(bootstrap),
        pair_rewards=summarize_pair_rewards(pair_rewards, bootstrap),
        edits=summarize_edits(edits, bootstrap),
        alike_pairs=summarize_alike_pairs(dpo, bootstrap.confidence),
    )
    return write_people_report(workdir, report)


class _PeopleRun(Run):
    """The first two stages."""

    def __init__(self, experiment: PeopleExperiment, workdir: Path):
        real = experiment.alike_pairs.real
        super().__init__(workdir, experiment="people", models=real.models, mesh=real.mesh)
        self.experiment = experiment

    def pair_rewards(self) -> list[dict]:
        """PAL beside WALS."""
        settings, seed = self.experiment.pair_rewards, derive_seed(self.experiment.seed, 0)
        features_fn = self._features(settings.features)
        with self.stage("pair_rewards", settings=settings, seed=seed, features=features_fn.name) as stage:
            if not stage.is_complete():
                people = draw_people(settings.tastes, seed)
                features = {STATES: features_fn(people.films), READ_SLOTS: slot_features(people.films)}
                features = {name: unit_variance(values) for name, values in features.items()}
                stage.write_json("rows.json", measure_pair_rewards(people, features, settings, seed, stage))
                stage.finish()
        return stage.read_json("rows.json")

    def edits(self) -> list[dict]:
        """CIPHER beside profiles of ratings."""
        settings, seed = self.experiment.edits, derive_seed(self.experiment.seed, 1)
        features_fn, generator = self._features(settings.features), self.generator(settings.generator)
        names = {"features": features_fn.name, "generator": generator.name}
        with self.stage("edits", settings=settings, seed=seed, **names) as stage:
            if not stage.is_complete():
                stage.write_json("rows.json", measure_edits(settings, features_fn, generator, seed, stage))
                stage.finish()
        return stage.read_json("rows.json")

    def _features(self, name: str):
        real = self.experiment.alike_pairs.real
        return load_features(name, real.models.batch_size, real.models.dtype, real.mesh)
