"""Candidates: spread over categories, drawn users, retries, and independence of the chunking."""

from collections import Counter

import numpy as np

from eagle_jax.data.prompts import COMPACT, MOVIE, render_blocks
from eagle_jax.eagle.candidates import (
    CandidateSettings,
    ProposalContext,
    apply_candidates,
    count_candidates,
    propose_candidates,
)
from eagle_jax.eagle.environment import LLMEnvironment, Step
from eagle_jax.language_model.generation import Generation, SamplingSettings

SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=20)
PROFILES = [f"profile{user}" for user in range(30)]
SETTINGS = CandidateSettings(num_generic=10, num_personalised=10, max_tries=3)


def entity(index):
    blocks = {"PLOT": f"film {index}.", "REASONS_TO_LIKE": "x.", "REASONS_TO_DISLIKE": "y."}
    return index, render_blocks(blocks)


class Writer:
    """Row i of a call is drawn from (seed, i), as a language model's rows are."""

    def __init__(self, share_malformed=0.0):
        self.share_malformed = share_malformed
        self.prompts = []

    def generate(self, prompts, sampling, seed):
        return [self.write(prompt, np.random.default_rng([seed, row])) for row, prompt in enumerate(prompts)]

    def write(self, prompt, rng):
        self.prompts.append(prompt.text)
        reason = "length" if rng.random() < self.share_malformed else "stop"
        word = f"word{rng.integers(1000)}"
        text = f"add {word}."
        if prompt.opening == "#BEGIN_PLOT":
            text = f"new {word}. #END_PLOT #BEGIN_REASONS_TO_LIKE x. #END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE y."
        return Generation(text=text, token_ids=None, log_probs=None, stop_reason=reason)


def make(generator):
    context = ProposalContext(generator, COMPACT, MOVIE, SAMPLING, PROFILES)
    environment = LLMEnvironment(generator=generator, book=COMPACT, entity_format=MOVIE, sampling=SAMPLING)
    return context, environment


def test_spread_over_categories_and_kinds():
    writer = Writer()
    candidates = propose_candidates(make(writer)[0], [entity(4)], SETTINGS, seed=0)[0]
    assert len(candidates) == 20
    for personalised in (False, True):
        kind = [c for c in candidates if c.personalised is personalised]
        assert Counter(c.category for c in kind) == dict.fromkeys(MOVIE.action_categories, 2)
    for candidate, prompt in zip(candidates, writer.prompts, strict=True):
        assert candidate.entity_index == 4 and candidate.category in prompt
        if candidate.personalised:
            assert f"#BEGIN_USER_PROFILE {PROFILES[candidate.user_index]} #END" in prompt
        else:
            assert "profile" not in prompt
    assert len({c.user_index for c in candidates}) > 3


def test_nothing_depends_on_the_chunking():
    entities = [entity(index) for index in (2, 5, 9)]
    context, environment = make(Writer(0.3))
    together = propose_candidates(context, entities, SETTINGS, seed=1)
    applied = apply_candidates(environment, entities, together, seed=1)
    for row in reversed(range(3)):
        one = propose_candidates(context, entities[row : row + 1], SETTINGS, seed=1)
        assert one == [together[row]]
        assert apply_candidates(environment, entities[row : row + 1], one, 1) == [applied[row]]
    assert propose_candidates(context, entities, SETTINGS, seed=2) != together
    assert together[0][0].action != together[1][0].action


def test_malformed_proposals_are_retried_and_counted():
    context, environment = make(Writer(0.5))
    entities = [entity(index) for index in range(5)]
    candidates = propose_candidates(context, entities, SETTINGS, seed=0)
    flat = [candidate for row in candidates for candidate in row]
    failed = [c for c in flat if c.action is None]
    assert all(c.malformed == ("length",) * 3 for c in failed)
    assert 0.03 < len(failed) / len(flat) < 0.3  # 1/8 expected of 100
    assert any(c.action and c.malformed for c in flat)

    steps = apply_candidates(environment, entities, candidates, seed=0)
    assert environment.num_calls == len(flat) - len(failed)
    for (_, text), row, outcomes in zip(entities, candidates, steps, strict=True):
        for candidate, step in zip(row, outcomes, strict=True):
            if candidate.action is None:
                assert step == Step(action=None, description=text, malformed="action:length")
            elif step.malformed:
                assert (step.description, step.malformed) == (text, "environment:length")
            else:
                assert step.action == candidate.action and "new word" in step.description

    counts = count_candidates(candidates, steps)
    assert counts["candidates"] == 100
    assert counts["action:length"] == sum(len(c.malformed) for c in flat)
    malformed_edits = [s for row in steps for s in row if s.malformed == "environment:length"]
    assert counts["environment:length"] == len(malformed_edits) > 0


def test_duplicates_are_kept_and_counted():
    class Parrot(Writer):
        def write(self, prompt, rng):
            return super().write(prompt, np.random.default_rng(0))

    context, environment = make(Parrot())
    entities = [entity(0), entity(1)]
    candidates = propose_candidates(context, entities, SETTINGS, seed=0)
    steps = apply_candidates(environment, entities, candidates, seed=0)
    assert [len(row) for row in candidates] == [20, 20]
    # 20 equal actions within an entity are 19 duplicates; across entities they are not.
    assert count_candidates(candidates, steps)["duplicates"] == 38
