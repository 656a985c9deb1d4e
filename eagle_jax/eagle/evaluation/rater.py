"""The paper's rater columns, answered by a language model: blind A/B forms on finished episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import MalformedText, PromptBook, rater_prompt, render_block
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord
from eagle_jax.eagle.evaluation.rater_form import (
    RaterAnswers,
    RaterScores,
    blind_order,
    parse_rater_answers,
    place_blind,
    score_answers,
)
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator, parse_generation


def rate_episodes(
    records: Sequence[EpisodeRecord], generator: TextGenerator, book: PromptBook, sampling: SamplingSettings, seed: int
) -> tuple[list[RaterScores | None], Counter[str]]:
    """Scores of each record's final text against its anchor, and malformed answers by reason.

    None where there is nothing to compare (the text is the anchor's) and where the answer was
    malformed; it is not asked for again. Which text is A is drawn for each form. One call of
    `generator` for all forms.
    """
    labels, prompts = {}, []
    for index, record in enumerate(records):
        if record.final_text != record.anchor:
            # A seed of its own: the place of the text must tell nothing about the rater's noise.
            labels[index] = blind_order(derive_seed(seed, 0), index)
            texts = place_blind(record.final_text, record.anchor, labels[index])
            prompts.append(rater_prompt(book, *texts, record.profile))
    generations = generator.generate(prompts, sampling, derive_seed(seed, 1))
    scores: list[RaterScores | None] = [None] * len(records)
    malformed: Counter[str] = Counter()
    for (index, label), generation in zip(labels.items(), generations, strict=True):
        try:
            scores[index] = score_answers(rater_answers(generation), label)
        except MalformedText as error:
            malformed[error.reason] += 1
    return scores, malformed


def rater_answers(generation: Generation) -> RaterAnswers:
    """What a model answered to `rater_prompt`; raises `MalformedText`."""
    block = parse_generation(generation, ["ANSWERS"])["ANSWERS"]
    return parse_rater_answers(render_block("ANSWERS", block))
