"""ELM as EAGLE's baseline: a decoder that tells the entity at a point of the domain space.

Tennenholtz et al. 2024 (EAGLE), section 5, first row of its table of results.
Axes: N entities, B points, d domain width.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import EntityFormat, MalformedText, Prompt, PromptBook, describe_prompt, render_blocks
from eagle_jax.data.tasks import BEHAVIORAL, PLACEHOLDERS
from eagle_jax.eagle.elm_baseline.settings import ElmDecoderSettings
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.settings import ModelSettings
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.elm.evaluation.consistency import cosine_consistency
from eagle_jax.elm.model.adapter import input_statistics
from eagle_jax.elm.model.embedding_lm import EmbeddingLM, new_embedding_lm
from eagle_jax.elm.model.files import load_embedding_lm, save_embedding_lm
from eagle_jax.elm.model.prompts import EmbeddedBatch, EmbeddedPrompt
from eagle_jax.elm.model.training import train_elm
from eagle_jax.embeddings.nearest import find_nearest
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.generation import Generation, SamplingSettings, parse_generation

_MODEL = "model"


@dataclasses.dataclass(frozen=True)
class PointDecoder:
    """Texts of points: the ELM is asked as a model is that knows an entity by its title."""

    elm: EmbeddingLM
    book: PromptBook
    entity_format: EntityFormat
    sampling: SamplingSettings

    @property
    def prompt(self) -> Prompt:
        """With the placeholder where an entity's title would stand."""
        return describe_prompt(self.book, self.entity_format, PLACEHOLDERS[BEHAVIORAL])

    def prompts(self, points: np.ndarray) -> list[EmbeddedPrompt]:
        """One for each of points [B, d]."""
        prompt = self.prompt
        return [EmbeddedPrompt(prompt, ((BEHAVIORAL, np.float32(point)),)) for point in points]

    def completion(self, description: str) -> str:
        """What is to be written of a text: all behind the marker that the prompt ends in."""
        return description.removeprefix(self.prompt.opening).lstrip()

    def generate(self, points: np.ndarray, seed: int) -> list[Generation]:
        """What the ELM writes of points [B, d], as it is."""
        return self.elm.generate(self.prompts(points), self.sampling, seed)

    def steps(self, points: np.ndarray, anchors: Sequence[str], seed: int) -> list[Step]:
        """The texts of points [B, d]; a malformed one is its anchor, as a malformed rewriting of
        the environment is, with the reason `decoder:<reason>`."""
        steps = []
        for anchor, generation in zip(anchors, self.generate(points, seed), strict=True):
            try:
                text = render_blocks(parse_generation(generation, self.entity_format.blocks))
                steps.append(Step(action=None, description=text, malformed=None))
            except MalformedText as error:
                fault = f"decoder:{error.reason}"
                steps.append(Step(action=None, description=anchor, malformed=fault))
        return steps


def run_elm_decoder_stage(
    stage: StageFolder,
    world: EagleWorld,
    base: LanguageModel,
    embeddings: np.ndarray,
    models: ModelSettings,
    settings: ElmDecoderSettings,
    seed: int,
) -> PointDecoder:
    """An ELM trained on the training entities' behavioral embeddings (of all: [N, d]) and texts.

    Writes model/, metrics/ and facts.json.
    """

    def decoder_of(elm: EmbeddingLM) -> PointDecoder:
        return PointDecoder(elm, world.book, world.entity_format, settings.sampling)

    if not stage.is_complete():
        stage.begin()
        known, descriptions = world.split.entities["train"], world.catalogue.descriptions
        elm = new_embedding_lm(
            base,
            {BEHAVIORAL: input_statistics(embeddings[known])},
            jax.random.key(derive_seed(seed, 1)),
            hidden_width=settings.adapter_hidden_width,
            batch_size=models.batch_size,
            length_multiple=models.length_multiple,
            slot_multiple=1,
        )
        elm = train_elm(
            elm,
            _batch_drawer(decoder_of(elm), descriptions, embeddings, known, settings.batch_size, seed),
            settings.training,
            jax.random.key(derive_seed(seed, 2)),
            checkpoint_folder=stage.path / "checkpoints",
            digest=stage.digest,
            metrics_folder=stage.path / "metrics",
            description=stage.name,
        )
        save_embedding_lm(elm, stage.path / _MODEL)
        held_out = world.split.entities["validation"]
        texts = [descriptions[i] for i in held_out]
        facts = decoder_facts(decoder_of(elm), texts, embeddings[held_out], world.scorer, derive_seed(seed, 3))
        stage.write_json("facts.json", facts)
        stage.finish()
    return decoder_of(load_embedding_lm(stage.path / _MODEL, base))


def _batch_drawer(
    decoder: PointDecoder,
    descriptions: Sequence[str],
    embeddings: np.ndarray,
    known: np.ndarray,
    batch_size: int,
    seed: int,
) -> Callable[[int], tuple[EmbeddedBatch, ...]]:
    """step -> a batch of the entities `known`."""

    def draw(step: int) -> tuple[EmbeddedBatch, ...]:
        drawn = np.random.default_rng([seed, step]).choice(known, batch_size)
        targets = [decoder.completion(descriptions[i]) for i in drawn]
        return (decoder.elm.encode(decoder.prompts(embeddings[drawn]), targets),)

    return draw


def decoder_facts(
    decoder: PointDecoder, originals: Sequence[str], points: np.ndarray, scorer: Scorer, seed: int
) -> dict[str, Any]:
    """How well entities that were not trained on are told, and come back: their texts, and points [N, d].

    Loss: nats per token of the entity's own text, given its point, and given another entity's.
    Back: from a point to a text to E_D(text), beside E_D of the entity's own text; cosines and
    distances to the point, means over the well-formed ones. Raises UserError if none is.
    """
    targets = [decoder.completion(text) for text in originals]
    num_tokens = sum(
        len(decoder.elm.model.tokenizer.encode_response(decoder.prompt.text, target)[1]) for target in targets
    )
    decoded = decoder.steps(points, originals, seed)
    reasons = [step.malformed for step in decoded]
    is_told = np.array([reason is None for reason in reasons])
    if not is_told.any():
        raise UserError(
            f"none of {len(points)} points is decoded into a well-formed text "
            f"({dict(Counter(reasons))}): train elm_baseline.decoder longer"
        )
    facts: dict[str, Any] = {
        "num_points": len(points),
        "malformed": dict(Counter(reason for reason in reasons if reason is not None)),
        "nearest_distance": nearest_distance(points),
    }
    for name, given in (("own", points), ("another", np.roll(points, 1, axis=0))):
        total = decoder.elm.log_probs(decoder.prompts(given), targets).sum()
        facts[f"loss_given_{name}_point"] = float(-total / num_tokens)
    texts = {"decoded": [step.description for step in decoded], "own_text": originals}
    for name, of_texts in texts.items():
        back = scorer.embed(of_texts)[is_told]
        facts[f"{name}_cosine"] = float(cosine_consistency(back, points[is_told]).mean())
        distances = np.linalg.norm(back - points[is_told], axis=1)
        facts[f"{name}_distance"] = float(distances.mean())
    return facts


def nearest_distance(points: np.ndarray) -> float:
    """The median over points [N, d] of the Euclidean distance to the nearest other one."""
    _, distances = find_nearest(points, points, 2)  # the nearest of all is the point itself
    return float(np.median(distances[:, 1]))
