"""A language model answers the raters' form about every text, once with the new text at A, once at B."""

from __future__ import annotations

import dataclasses
from collections import Counter

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import MalformedText, rater_prompt, render_blocks
from eagle_jax.eagle.evaluation.rater import rater_answers
from eagle_jax.eagle.evaluation.rater_form import place_blind
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator
from eagle_jax.pages.rated_run import THE_USER, RatedRun
from eagle_jax.pages.rating_store import MODEL, Form, RatingStore

_FORMS_AT_A_TIME = 32
_SAMPLING = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=256)


def ask_model(run: RatedRun, store: RatingStore, generator: TextGenerator, seed: int) -> Counter[str]:
    """Asks for the forms that the store does not have from this model; each batch is kept at once.

    Returns how many answers were malformed, by reason; they are left out. Raises `UserError` where
    the run's prompts are none of ours, or its form is not EAGLE's.
    """
    if not run.is_blind:
        raise UserError("--model: only EAGLE's form is put to a model; the texts of this run are rated by people")
    if run.prompts is None:
        raise UserError("the run does not say which prompts it was made with; run experiments.eagle anew")
    there = {form.place for form in store.forms() if form.rater == generator.name}
    forms = [
        Form(
            rater=generator.name,
            kind=MODEL,
            place=2 * item + order,
            item=item,
            label=label,
            expected=None,
            answers=None,
            seconds=None,
        )
        for item in range(len(run.items))
        for order, label in enumerate("AB")
        if 2 * item + order not in there
    ]
    malformed: Counter[str] = Counter()
    batches = [forms[at : at + _FORMS_AT_A_TIME] for at in range(0, len(forms), _FORMS_AT_A_TIME)]
    for batch in progress(batches, len(batches), "rating", "batch"):
        prompts = []
        for form in batch:
            item = run.items[form.item]
            texts = place_blind(render_blocks(item.generated), render_blocks(item.anchor), form.label)
            prompts.append(rater_prompt(run.prompts, *texts, item.about[THE_USER][""]))
        answered = []
        generations = generator.generate(prompts, _SAMPLING, derive_seed(seed, batch[0].place))
        for form, generation in zip(batch, generations, strict=True):
            try:
                answered.append(dataclasses.replace(form, answers=rater_answers(generation)))
            except MalformedText as error:
                malformed[error.reason] += 1
        store.add(answered)
    return malformed
