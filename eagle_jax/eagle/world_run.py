"""The stages of the EAGLE experiment that make the world its agents act in: ratings to candidate actions."""

from __future__ import annotations

import dataclasses
from typing import Any

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import PROMPT_BOOKS
from eagle_jax.data.sources import fingerprint, load_catalogue
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.candidate_stage import CandidateSet, run_candidate_stage
from eagle_jax.eagle.ceiling.stage import run_ceiling_stage
from eagle_jax.eagle.encoder_stage import run_encoder_stage
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.profile_stage import run_profile_stage
from eagle_jax.eagle.quality.quality import Quality
from eagle_jax.eagle.quality.readings import TextFluency
from eagle_jax.eagle.quality.stage import quality_reader, run_quality_stage
from eagle_jax.eagle.reliability import run_reliability_stage
from eagle_jax.eagle.roles.field_changes import read_field_changes
from eagle_jax.eagle.roles.rewrite_formats import BLOCKS_ONCE
from eagle_jax.eagle.roles.signs import read_signs
from eagle_jax.eagle.settings import AS_BEFORE, EagleExperiment
from eagle_jax.eagle.user_space import UserSpace, films_apart, make_user_space
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.embeddings.sentences.field_features import FieldFeatures, NamedFeatures
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.stages.catalogue import run_catalogue_stage
from eagle_jax.stages.models import REMOTE, load_features, load_model, without_thoughts
from eagle_jax.stages.run import ExperimentRun

CEILING = "ceiling"  # the stage that a run may end with


class WorldRun(ExperimentRun):
    """Stages 1 to 4 of one experiment: their names and what each one reads."""

    experiment_name = "eagle"
    experiment: EagleExperiment
    world: EagleWorld
    features: dict[str, NamedFeatures]
    user_space: UserSpace

    def prepare_world(self) -> None:
        """Stages 1 to 3: ratings, encoders, profiles."""
        settings, models = self.experiment, self.experiment.models
        catalogue, load_report = load_catalogue(settings.catalogue)
        split, apart = split_catalogue(catalogue, settings.split), None
        of_data = {"data": fingerprint(catalogue), "split": settings.split, "wals": settings.wals}
        if settings.user_space.independent:
            split, apart = films_apart(split, self._seed(13))
            of_data["independent"] = True
        with self.stage("catalogue", **of_data) as stage:
            seed = self._seed(1)
            wals = run_catalogue_stage(stage, catalogue, load_report, split, settings.wals, seed, settings.mesh)
        space = make_user_space(wals, settings.wals, settings.user_space)
        heads = {TRAIN: settings.domain_encoder, HELD_OUT: settings.held_out_domain_encoder}
        features = {
            name: load_features(model, models.batch_size, models.dtype, settings.mesh)
            for name, model in ((TRAIN, models.features), (HELD_OUT, models.held_out_features))
        }
        if models.fields:
            features = {name: FieldFeatures(encoder) for name, encoder in features.items()}
        self.features = features
        names = {name: encoder.name for name, encoder in features.items()}
        # Named where it is not what it always was, so that what was made before is still read.
        told = {} if settings.user_space == AS_BEFORE else {"user_space": settings.user_space}
        with self.stage("encoders", "catalogue", heads=heads, models=names, **told) as stage:
            scorers, self.user_space = run_encoder_stage(
                stage,
                catalogue,
                split,
                space,
                features,
                heads,
                settings.utility,
                settings.user_space,
                self._seed(2),
                apart,
            )
        world = EagleWorld(catalogue, split, PROMPT_BOOKS[settings.prompts], scorers, quality=self._quality(catalogue))
        writer = self.generator(models.generator)
        source = {"profiles": settings.profiles, "model": writer.name}
        if settings.data_profiles is not None:
            source = {"data_profiles": settings.data_profiles}
        if settings.profile_groups is not None:  # absent in folders of before
            source["profile_groups"] = settings.profile_groups
        with self.stage("profiles", "encoders", **source) as stage:
            profiles = run_profile_stage(
                stage,
                world,
                writer,
                features[TRAIN],
                settings.profiles,
                settings.domain_encoder,
                self._seed(3),
                settings.data_profiles,
                settings.profile_groups,
            )
        self.world = dataclasses.replace(world, profiles=profiles)

    def _measure_ceiling(self) -> dict[str, Any]:
        """Stage 3b: what could be gained at most."""
        ceiling, bootstrap = self.experiment.ceiling, self.experiment.evaluation.bootstrap
        before, told = self._enter_environment()
        with self.stage(CEILING, *before, ceiling=ceiling, bootstrap=bootstrap, **told) as stage:
            return run_ceiling_stage(stage, self.world, ceiling, bootstrap, self._seed(12))

    def _enter_environment(self) -> tuple[list[str], dict[str, Any]]:
        """The world gets it; the stages and settings that its texts and their rewards depend on."""
        settings = self.experiment
        environment = self._environment(settings.models.environment)
        self.world = dataclasses.replace(self.world, environment=environment)
        before = ["profiles"] if settings.quality is None else ["profiles", "quality"]
        told = {
            "utility": settings.utility,
            "environment": settings.environment,
            "environment_model": environment.generator.name,
        }
        later = {  # absent in folders of before
            "rewriting": settings.rewriting,
            "quality_weight": None if settings.quality is None else settings.quality.weight,
        }
        return before, told | {name: value for name, value in later.items() if value is not None}

    def propose_candidates(self) -> list[CandidateSet]:
        """Stage 4: candidate actions and what each makes of its anchor."""
        settings, generator = self.experiment, self.generator(self.experiment.models.generator)
        before, told = self._enter_environment()
        if settings.listed_actions is not None:  # absent in folders of before
            told["listed_actions"] = settings.listed_actions
        with self.stage(
            "candidates", *before, candidates=settings.candidates, generator=generator.name, **told
        ) as stage:
            return run_candidate_stage(
                stage, self.world, generator, settings.candidates, self._seed(4), settings.listed_actions
            )

    def _quality(self, catalogue: Catalogue) -> Quality | None:
        """Beside the encoders: what the reward takes off for texts that are not like the catalogue's."""
        settings, models, features = self.experiment.quality, self.experiment.models, self.features[TRAIN]
        if settings is None:
            return None
        name, fluency, fmt = settings.model or models.environment, None, catalogue.entity_format
        if not name.startswith(REMOTE):
            model = load_model(name, models.dtype, self.experiment.environment_mesh or self.experiment.mesh)
            fluency = TextFluency(model, fmt, models.batch_size)
        told = {"model": None if fluency is None else fluency.name, "features": features.name}
        told |= {"quantile": settings.quantile, "num_texts": settings.num_texts}
        with self.stage("quality", "encoders", **told) as stage:
            reader = quality_reader(fmt, fluency, features)
            return run_quality_stage(stage, catalogue.descriptions, reader, settings, self._seed(11))

    def _measure_reliability(self) -> None:
        """Stage 4, beside the candidates: how far two halves of the data agree on them."""
        with self.stage("reliability", "encoders", "candidates") as stage:
            before = self.stages["encoders"], self.stages["candidates"]
            run_reliability_stage(stage, *before, self.features[TRAIN], self.world.split)

    def _environment(self, name: str) -> LLMEnvironment:
        """The environment that a model plays."""
        generator, rewriting = self.generator(name, mesh=self.experiment.environment_mesh), self.experiment.rewriting
        if rewriting is not None and isinstance(generator, LocalGenerator):
            generator = dataclasses.replace(generator, model=without_thoughts(generator.model))
        rewriting, entity_format = rewriting or BLOCKS_ONCE, self.world.entity_format
        signs, fields = rewriting.signs_file, rewriting.fields_file
        return LLMEnvironment(
            generator=generator,
            book=self.world.book,
            entity_format=entity_format,
            sampling=self.experiment.environment,
            rewriting=rewriting,
            signs={} if signs is None else read_signs(signs, entity_format),
            field_changes={} if fields is None else read_field_changes(fields, entity_format),
        )

    def _seed(self, *path: int) -> int:
        return derive_seed(self.experiment.seed, *path)
