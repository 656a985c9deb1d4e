"""Candidates: who is asked what, what becomes of the answers, and independence of the chunking."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens import grammar
from eagle_jax.data.prompts import COMPACT, MOVIE
from eagle_jax.eagle.candidate_stage import apply_candidates, count_candidates, propose_candidates, run_candidate_stage
from eagle_jax.eagle.environment import LLMEnvironment, Step
from eagle_jax.eagle.settings import CandidateSettings, CandidateStageSettings
from eagle_jax.language_model.generation import Generation, ScriptedGenerator
from tests.small_world import SAMPLING, utility_by_hand

ORACLE = grammar.GrammarOracle()
SETTINGS = CandidateStageSettings(
    num_entities=3,
    entities_per_chunk=2,
    sampling=SAMPLING,
    candidates=CandidateSettings(num_generic=10, num_personalised=10, max_tries=1),
)


def rewrite_by_grammar(prompt, rng):
    """An environment that does what the action says; what it cannot read it leaves unclosed."""
    start, stop = prompt.text.index("#BEGIN_PLOT"), prompt.text.index(" #BEGIN_ACTION")
    before, [(slot, value)] = prompt.text[start:stop], grammar.mentions(prompt.text[stop:])
    if slot == "excluded":
        return "a tale without its other blocks"
    edits = {
        (slot, grammar.parse_film(edit)[slot]): edit
        for edit in ORACLE.single_edits(before)
        if grammar.parse_film(edit)[slot] != grammar.parse_film(before)[slot]
    }
    return edits.get((slot, value), before).removeprefix("#BEGIN_PLOT")


def propose_anything(prompt, rng):
    """A random change; one proposal in six is empty."""
    words = sorted(grammar.word_values())
    action = grammar.tell_action(words[int(rng.integers(len(words)))], rng)
    return "" if rng.random() < 1 / 6 else action


def played_by(world, generator):
    """The world with an environment that this generator plays."""
    environment = LLMEnvironment(generator=generator, book=COMPACT, entity_format=MOVIE, sampling=SAMPLING)
    return dataclasses.replace(world, environment=environment)


@pytest.fixture
def run(tmp_path, world):
    """Runs the stage in a folder; `run.prompts` are what the generator was asked."""

    def ask(prompt, rng):
        run_stage.prompts.append(prompt.text)
        return propose_anything(prompt, rng)

    def run_stage(folder="run", seed=5, **changes):
        run_stage.prompts = []
        stage = StageFolder(tmp_path / folder / "candidates", {})
        played = played_by(world, ScriptedGenerator(rewrite_by_grammar))
        settings = dataclasses.replace(SETTINGS, **changes)
        return stage, run_candidate_stage(stage, played, ScriptedGenerator(ask), settings, seed)

    return run_stage


def test_each_candidate_has_its_text_embedding_user_and_utility(run, world):
    stage, sets = run()
    prompts = iter(run.prompts)
    rows = stage.read_jsonl("candidates.jsonl")
    train_users, scorer = world.split.users["train"], world.scorer
    assert len({row.entity_index for row in sets}) == len(sets) == 3
    for row, made in zip(rows, sets, strict=True):
        assert row["entity_index"] == made.entity_index in world.split.entities["train"]
        anchor = world.catalogue.descriptions[made.entity_index]
        texts = [rewrite["description"] for rewrite in row["next"]]
        np.testing.assert_array_equal(made.next_embeddings, scorer.embed(texts))
        kinds = [(candidate["category"], candidate["user"] is None) for candidate in row["candidates"]]
        assert Counter(kinds) == {(name, generic): 2 for name in MOVIE.action_categories for generic in (True, False)}
        assert len({candidate["user"] for candidate in row["candidates"]}) > 4  # drawn anew for each
        for k, candidate in enumerate(row["candidates"]):
            assert made.actions[k] == candidate["action"]
            assert made.user_index[k] in train_users
            prompt = next(prompts)
            assert anchor in prompt and f"of the kind {candidate['category']}" in prompt
            assert ("USER_PROFILE" in prompt) == (k >= 10) == (candidate["user"] is not None)
            if candidate["user"] is not None:
                assert train_users[candidate["user"]] == made.user_index[k]
                assert world.profiles[int(made.user_index[k])] in prompt
            expected = utility_by_hand(scorer, made.next_embeddings[k], made.user_index[k])[0]
            assert made.next_utilities[k] == pytest.approx(expected, rel=1e-4, abs=1e-4)
            asked = grammar.mentions(candidate["action"] or "")
            is_good = bool(asked) and asked[0][0] != "excluded"
            assert made.is_valid[k] == is_good
            if is_good:
                assert grammar.parse_film(texts[k]) == grammar.parse_film(anchor) | dict(asked)
            else:
                assert texts[k] == anchor
    valid = np.array([made.is_valid for made in sets])
    assert valid.any() and not valid.all()
    facts = stage.read_json("facts.json")
    assert facts["candidates"] == 60
    no_action = sum(action is None for made in sets for action in made.actions)
    assert facts["action:empty_block"] == no_action > 0
    assert facts["environment:missing_block"] == np.sum(~valid) - no_action > 0


def test_a_complete_stage_is_read_an_interrupted_one_goes_on_and_chunks_change_nothing(run):
    stage, sets = run()
    assert len(run.prompts) == 60
    _, again = run()
    assert run.prompts == []
    (stage.path / "MANIFEST.json").unlink()
    (stage.path / "parts" / "00001.json").unlink()
    _, resumed = run()
    assert len(run.prompts) == 20  # the second chunk has one entity
    _, other_chunks = run("one by one", entities_per_chunk=1)
    for other in (again, resumed, other_chunks):
        for one, two in zip(sets, other, strict=True):
            assert (one.entity_index, one.actions) == (two.entity_index, two.actions)
            for name in ("user_index", "next_embeddings", "next_utilities", "is_valid"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert sets[0].actions != sets[1].actions
    _, different = run("another seed", seed=6)
    assert [s.actions for s in different] != [s.actions for s in sets]


class Writer:
    """Row i of a call is drawn from (seed, i), as a language model's rows are; every other is cut."""

    def generate(self, prompts, sampling, seed):
        return [self.write(prompt, np.random.default_rng([seed, row])) for row, prompt in enumerate(prompts)]

    def write(self, prompt, rng):
        reason = "length" if rng.random() < 0.5 else "stop"
        text = f"add word{rng.integers(1000)}."
        if prompt.opening == "#BEGIN_PLOT":
            text = f"new {text} #END_PLOT #BEGIN_REASONS_TO_LIKE x. #END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE y."
        return Generation(text=text, token_ids=None, log_probs=None, stop_reason=reason)


def test_malformed_proposals_are_retried_and_counted(world):
    played = played_by(world, Writer())
    many = dataclasses.replace(SETTINGS, candidates=CandidateSettings(num_generic=50, num_personalised=50, max_tries=3))
    candidates = propose_candidates(played, Writer(), 4, many, seed=0)
    failed = [c for c in candidates if c.action is None]
    assert all(c.malformed == ["length"] * 3 for c in failed)
    assert 3 < len(failed) < 30  # 1/8 expected of 100
    assert any(c.action and c.malformed for c in candidates)

    steps = apply_candidates(played, 4, candidates, seed=0)
    text = world.catalogue.descriptions[4]
    assert played.environment.num_calls == 100 - len(failed)
    for candidate, step in zip(candidates, steps, strict=True):
        if candidate.action is None:
            assert step == Step(action=None, description=text, malformed="action:length")
        elif step.malformed:
            assert (step.description, step.malformed) == (text, "environment:length")
        else:
            assert step.action == candidate.action and "new add" in step.description
    counts = count_candidates(candidates, steps)
    assert counts["candidates"] == 100
    assert counts["action:length"] == sum(len(c.malformed) for c in candidates)
    assert counts["environment:length"] == sum(s.malformed == "environment:length" for s in steps) > 0


def test_duplicates_are_kept_and_counted(world):
    parrot = ScriptedGenerator(lambda prompt, rng: "the same action")
    candidates = propose_candidates(world, parrot, 0, SETTINGS, seed=0)
    steps = [Step(action=c.action, description="x", malformed=None) for c in candidates]
    # 20 equal actions are 19 duplicates.
    assert count_candidates(candidates, steps) == {"candidates": 20, "duplicates": 19}
