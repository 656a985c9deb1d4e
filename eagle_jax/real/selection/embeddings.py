"""What a response is to the selection, and whether that changes while a policy is trained.

Axis letters: P pairs of responses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.preferences.examples import PreferenceExample, all_responses
from eagle_jax.embeddings.sentences.encoder import is_sentence_encoder, load_sentence_encoder
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import make_mesh
from eagle_jax.real.selection.response_embeddings import DecoderEmbeddings, EncoderEmbeddings, with_pooling
from eagle_jax.real.settings import POLICY, EmbeddingSettings, RealExperiment
from eagle_jax.stages.models import load_model


def make_embed_fn(
    settings: EmbeddingSettings, policy: LanguageModel, experiment: RealExperiment
) -> DecoderEmbeddings | EncoderEmbeddings:
    """The embeddings that the settings name; `policy` is the supervised start."""
    models = experiment.models
    if settings.model != POLICY and is_sentence_encoder(settings.model):
        if settings.with_prompt:
            raise UserError("config.embeddings: a sentence encoder never reads the prompt")
        encoder = load_sentence_encoder(
            Path(settings.model), batch_size=models.batch_size, dtype=models.dtype, mesh=make_mesh(experiment.mesh)
        )
        return EncoderEmbeddings(with_pooling(encoder, settings.pooling))
    return DecoderEmbeddings(
        model=policy if settings.model == POLICY else load_model(settings.model, models.dtype, experiment.mesh),
        pooling=settings.pooling,
        with_prompt=settings.with_prompt,
        max_tokens=experiment.training.max_tokens,
        batch_size=models.batch_size,
    )


@dataclasses.dataclass(frozen=True)
class StabilityPairs:
    """All pairs among the responses to some held-out prompts, by the policy's own embedding.

    prompts, responses: flat. first, second: [P], their places. prompt_index: [P], or None where
    prompts have one pair each, which then compete with each other.
    """

    embed_fn: DecoderEmbeddings
    prompts: Sequence[str]
    responses: Sequence[str]
    first: np.ndarray
    second: np.ndarray
    prompt_index: np.ndarray | None

    def similarities(self, params: Params) -> np.ndarray:
        """Cosine of each pair [P] when the policy has the parameters `params`."""
        vectors = self.embed_fn.with_params(params)(self.prompts, self.responses)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.sum(unit[self.first] * unit[self.second], axis=1)


def stability_pairs(
    experiment: RealExperiment, policy: LanguageModel, examples: Sequence[PreferenceExample]
) -> StabilityPairs | None:
    """Pairs of the first held-out prompts; None where no embedding is the policy's own."""
    of_policy = [s for s in experiment.embeddings.values() if s.model == POLICY]
    if not of_policy:
        return None
    examples = examples[: experiment.evaluation.num_stability_prompts]
    pairs, start = [], 0
    for n, example in enumerate(examples):
        end = start + len(example.responses)
        pairs += [(i, j, n) for j in range(start, end) for i in range(start, j)]
        start = end
    first, second, prompt_index = np.array(pairs).T
    embed_fn = make_embed_fn(of_policy[0], policy, experiment)
    compete = experiment.selection.scope == "across"
    return StabilityPairs(embed_fn, *all_responses(examples), first, second, None if compete else prompt_index)
