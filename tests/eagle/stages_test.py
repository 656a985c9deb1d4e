"""What the stages compute themselves: splits, facts, scores, candidates, pairs, told episodes."""

import dataclasses

import jax
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import MiniLensSettings, make_catalogue
from eagle_jax.data.prompts import COMPACT, MOVIE
from eagle_jax.data.sources import fingerprint
from eagle_jax.data.splits import PARTS, SplitSettings, split_catalogue
from eagle_jax.eagle.candidate_stage import CandidateSet, run_candidate_stage
from eagle_jax.eagle.candidates import CandidateSettings, ProposalContext
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment
from eagle_jax.eagle.episodes import Episodes
from eagle_jax.eagle.evaluation.rows import (
    ANCHOR,
    BEST_OF_N,
    EAGLE,
    ELM_DECODER,
    REFERENCE,
    TRANSFER,
    EvalRow,
    comparison_pairs,
)
from eagle_jax.eagle.policy_stages import reference_pairs, usable_sets
from eagle_jax.eagle.profile_stage import rated_titles
from eagle_jax.eagle.report import _told_episodes
from eagle_jax.eagle.settings import CandidateStageSettings
from eagle_jax.embeddings.domain_encoder import DomainEncoder
from eagle_jax.embeddings.regression_head import HeadFit, RegressionHead
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSOutput
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator
from eagle_jax.stages.catalogue import wals_facts
from eagle_jax.stages.models import load_model

SPLIT = SplitSettings(
    seed=0, rating_fraction=0.1, validation_fraction=0.1, test_fraction=0.2, min_anchor_ratings=12, min_user_ratings=20
)
UTILITY = UtilitySettings(neighbor_weight=0.3, num_neighbors=3)
SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=80)
ORACLE = grammar.GrammarOracle()
WIDTH, LETTERS = 4, "abcdefghijklmnop"


@pytest.fixture(scope="module")
def catalogue():
    return make_catalogue(
        MiniLensSettings(
            seed=1,
            num_films=120,
            num_users=60,
            ratings_per_user=30,
            rating_noise=0.4,
            popularity_exponent=0.5,
            selection_strength=0.5,
        )
    )


@pytest.fixture(scope="module")
def split(catalogue):
    return split_catalogue(catalogue, SPLIT)


def count_letters(texts):
    """Features of a text that need no model."""
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], np.float32)


@pytest.fixture(scope="module")
def scorer(catalogue):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(len(LETTERS), WIDTH)).astype(np.float32)
    head = RegressionHead(
        np.full(len(LETTERS), 8, np.float32),
        np.full(len(LETTERS), 4, np.float32),
        ((weights, np.ones(WIDTH, np.float32)),),
    )
    encoder = DomainEncoder(count_letters, HeadFit(head, np.zeros(1)))
    users = rng.normal(size=(60, WIDTH)).astype(np.float32)
    return Scorer(encoder, users, encoder(catalogue.descriptions), UTILITY)


def utility_by_hand(scorer, embedding, user):
    """<z_u, z> + lambda * the sum of the three nearest distances, float64: U and its terms."""
    z, z_u = np.float64(embedding), np.float64(scorer.user_embeddings[user])
    distances = np.linalg.norm(np.float64(scorer.catalogue_embeddings) - z, axis=1)
    nearest = np.sort(distances)[:3].sum()
    return z_u @ z + 0.3 * nearest, z_u @ z, nearest


def make_table(rows, num_users, num_items):
    user, item, rating = zip(*rows, strict=True)
    return RatingTable(
        user_names=tuple(f"u{i}" for i in range(num_users)),
        item_names=tuple(f"i{i}" for i in range(num_items)),
        user_index=np.array(user, np.int32),
        item_index=np.array(item, np.int32),
        rating=np.array(rating, np.float32),
    )


class TestSplit:
    def test_ratings_are_divided_within_users(self, catalogue, split):
        def triples(table):
            columns = (table.user_index, table.item_index, table.rating)
            return set(zip(*(column.tolist() for column in columns), strict=True))

        train, test = triples(split.train), triples(split.test)
        assert not train & test and train | test == triples(catalogue.ratings)
        assert 0.07 < len(test) / len(catalogue.ratings) <= 0.1

    @pytest.mark.parametrize("what", ["entities", "users"])
    def test_parts_are_disjoint_exhaustive_and_of_the_size_asked_for(self, split, what):
        parts = getattr(split, what)
        assert tuple(parts) == PARTS
        table = split.train
        index = table.item_index if what == "entities" else table.user_index
        total = table.num_items if what == "entities" else table.num_users
        least = SPLIT.min_anchor_ratings if what == "entities" else SPLIT.min_user_ratings
        enough = [i for i in range(total) if np.sum(index == i) >= least]
        assert 10 < len(enough) < total  # somebody is left out: the rule is at work
        assert sorted(np.concatenate([parts[name] for name in PARTS]).tolist()) == enough
        assert len(parts["validation"]) == round(0.1 * len(enough))
        assert len(parts["test"]) == round(0.2 * len(enough))
        for part in parts.values():
            assert (np.diff(part) > 0).all()

    def test_the_seed_decides(self, catalogue, split):
        again = split_catalogue(catalogue, SPLIT)
        other = split_catalogue(catalogue, dataclasses.replace(SPLIT, seed=1))
        for name in PARTS:
            np.testing.assert_array_equal(again.entities[name], split.entities[name])
            np.testing.assert_array_equal(again.users[name], split.users[name])
        assert set(other.entities["test"]) != set(split.entities["test"])
        assert set(other.users["test"]) != set(split.users["test"])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"min_user_ratings": 1000}, "no train users left of 0 with enough ratings"),
            ({"min_anchor_ratings": 1000}, "no train entities left of 0"),
            ({"validation_fraction": 0.0}, "no validation entities left of"),
            ({"test_fraction": 0.001}, "no test entities left of"),
            ({"validation_fraction": 0.5, "test_fraction": 0.5}, "no (train|validation) entities"),
        ],
    )
    def test_an_empty_part_is_refused_by_name(self, catalogue, changes, message):
        with pytest.raises(UserError, match=f"config.split: {message}.*min_anchor_ratings"):
            split_catalogue(catalogue, dataclasses.replace(SPLIT, **changes))


def test_more_cannot_be_held_out_than_there_is():
    with pytest.raises(ValueError, match=r"validation_fraction \+ test_fraction must be at most 1"):
        dataclasses.replace(SPLIT, validation_fraction=0.9)


def test_the_fingerprint_changes_with_any_text_and_any_rating(catalogue):
    def with_entity(**changes):
        entities = list(catalogue.entities)
        entities[7] = dataclasses.replace(entities[7], **changes)
        return dataclasses.replace(catalogue, entities=tuple(entities))

    def with_rating(column, row, value):
        values = getattr(catalogue.ratings, column).copy()
        values[row] = value
        ratings = dataclasses.replace(catalogue.ratings, **{column: values})
        return dataclasses.replace(catalogue, ratings=ratings)

    entity, ratings = catalogue.entities[7], catalogue.ratings
    variants = [
        catalogue,
        with_entity(entity_id="other"),
        with_entity(title=entity.title + " "),
        with_entity(description=entity.description.replace("film", "tale", 1) + "."),
        with_entity(title="", description=f"{entity.title}{entity.description}"),
        dataclasses.replace(catalogue, entities=catalogue.entities[::-1]),
        with_rating("rating", 0, ratings.rating[0] + 0.5),
        with_rating("rating", -1, ratings.rating[-1] + 0.5),
        with_rating("item_index", 3, (ratings.item_index[3] + 1) % ratings.num_items),
        with_rating("user_index", 3, (ratings.user_index[3] + 1) % ratings.num_users),
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert fingerprint(dataclasses.replace(catalogue)) == fingerprint(catalogue)


def test_facts_about_wals_agree_with_a_float64_loop(catalogue, split):
    rng = np.random.default_rng(2)
    output = WALSOutput(
        *(rng.normal(size=shape).astype(np.float32) for shape in ((60, 3), (120, 3), (60,), (120,))),
        np.float32(3.4),
        np.array([9.0, 5.0, 4.0], np.float32),
    )
    baseline = output._replace(
        user_embeddings=np.zeros((60, 0), np.float32), item_embeddings=np.zeros((120, 0), np.float32)
    )

    def rmse(with_embeddings):
        errors, test = [], split.test
        for u, i, r in zip(test.user_index, test.item_index, test.rating, strict=True):
            predicted = 3.4 + float(output.user_bias[u]) + float(output.item_bias[i])
            if with_embeddings:
                predicted += np.float64(output.user_embeddings[u]) @ output.item_embeddings[i]
            errors.append(min(5.0, max(0.5, predicted)) - r)  # a rating has a scale
        return np.sqrt(np.mean(np.square(errors)))

    assert (split.train.rating.min(), split.train.rating.max()) == (0.5, 5.0)
    facts = wals_facts(catalogue, split, output, baseline)
    assert facts["held_out_rmse"] == pytest.approx(rmse(True), rel=1e-5)
    assert facts["baseline_rmse"] == pytest.approx(rmse(False), rel=1e-5)
    assert (facts["num_entities"], facts["num_users"]) == (120, 60)
    assert facts["num_training_ratings"] + facts["num_held_out_ratings"] == len(catalogue.ratings)
    assert (facts["objective_first"], facts["objective_last"]) == (9.0, 4.0)


def test_rated_titles_are_the_best_and_the_worst_and_never_both():
    entities = tuple(Entity(entity_id=f"i{i}", title=f"t{i}", description="") for i in range(8))
    rows = [(0, 3, 2.0), (1, 0, 5.0), (0, 1, 5.0), (0, 5, 4.0), (0, 2, 0.5), (0, 4, 4.0), (2, 6, 3.0), (1, 7, 1.0)]
    table = make_table(rows, num_users=4, num_items=8)
    catalogue = Catalogue(name="x", entities=entities, ratings=table, tags=(), entity_format=MOVIE)
    # User 0: t1 5.0, t5 4.0, t4 4.0 (level: as they come), t3 2.0, t2 0.5.
    assert rated_titles(catalogue, table, 0, 1) == (["t1"], ["t2"])
    assert rated_titles(catalogue, table, 0, 2) == (["t1", "t5"], ["t3", "t2"])
    # Five ratings have two halves of two: the one in the middle is on no side.
    assert rated_titles(catalogue, table, 0, 10) == (["t1", "t5"], ["t3", "t2"])
    assert rated_titles(catalogue, table, 1, 10) == (["t0"], ["t7"])
    assert rated_titles(catalogue, table, 2, 10) == ([], [])
    assert rated_titles(catalogue, table, 3, 10) == ([], [])


@pytest.fixture(scope="module")
def texts(catalogue):
    """More than one block of rows; edits, so that they are not in the catalogue."""
    edits = [e for text in catalogue.descriptions[:5] for e in ORACLE.single_edits(text)]
    return edits[:300]


class TestScorer:
    def test_terms_are_the_utility_by_hand(self, scorer, texts):
        users = np.arange(len(texts)) % 60
        embeddings = scorer.embed(texts)
        terms = scorer.score(texts, users)
        for row in range(0, len(texts), 7):
            expected = utility_by_hand(scorer, embeddings[row], users[row])
            ours = [t[row] for t in (terms.utility, terms.user_term, terms.neighbor_distance_term)]
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
        assert terms.creator_term is None  # no creators are known here
        assert all(isinstance(t, np.ndarray) and t.shape == (300,) for t in jax.tree.leaves(terms))

    def test_a_row_does_not_depend_on_its_batch(self, scorer, texts):
        users = np.arange(len(texts)) % 60
        whole = scorer.score(texts, users).utility
        for rows in ([0], [255, 256], [299, 3, 3], list(range(250, 300))):
            some = scorer.score([texts[row] for row in rows], users[rows]).utility
            np.testing.assert_array_equal(some, whole[rows])

    def test_an_entity_of_the_catalogue_is_at_no_distance_from_itself(self, scorer, catalogue):
        text = catalogue.descriptions[3]
        distances = np.linalg.norm(scorer.catalogue_embeddings - scorer.catalogue_embeddings[3], axis=1)
        term = scorer.score([text], np.array([0])).neighbor_distance_term[0]
        assert term == pytest.approx(np.sort(distances)[1:3].sum(), abs=1e-4)


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


@pytest.fixture(scope="module")
def profiles(split):
    users = np.concatenate([split.users[name] for name in PARTS]).tolist()
    return {user: f"genre: loves user number {user}, avoids none." for user in users}


class TestCandidates:
    SETTINGS = CandidateStageSettings(
        num_entities=3,
        entities_per_chunk=2,
        sampling=SAMPLING,
        candidates=CandidateSettings(num_generic=10, num_personalised=10, max_tries=1),
    )

    @pytest.fixture
    def run(self, tmp_path, catalogue, split, scorer, profiles):
        """Runs the stage in tmp_path; `run.prompts` are what the generator was asked."""

        def propose(prompt, rng):
            run_stage.prompts.append(prompt.text)
            return propose_anything(prompt, rng)

        def run_stage(seed=5):
            run_stage.prompts = []
            context = ProposalContext(
                ScriptedGenerator(propose),
                COMPACT,
                MOVIE,
                SAMPLING,
                [profiles[int(user)] for user in split.users["train"]],
            )
            environment = LLMEnvironment(
                generator=ScriptedGenerator(rewrite_by_grammar), book=COMPACT, entity_format=MOVIE, sampling=SAMPLING
            )
            stage = StageFolder(tmp_path / str(seed) / "candidates", {})
            sets = run_candidate_stage(
                stage, catalogue, split, profiles, context, environment, scorer, self.SETTINGS, seed
            )
            return stage, sets

        return run_stage

    def test_each_candidate_has_its_text_embedding_user_and_utility(self, run, catalogue, split, scorer, profiles):
        stage, sets = run()
        prompts = iter(run.prompts)
        rows = stage.read_jsonl("candidates.jsonl")
        train_users = split.users["train"]
        assert len({row.entity_index for row in sets}) == len(sets) == 3
        for row, made in zip(rows, sets, strict=True):
            assert row["entity_index"] == made.entity_index in split.entities["train"]
            anchor = catalogue.descriptions[made.entity_index]
            texts = [rewrite["description"] for rewrite in row["next"]]
            np.testing.assert_array_equal(made.next_embeddings, scorer.embed(texts))
            for k, candidate in enumerate(row["candidates"]):
                assert made.actions[k] == candidate["action"]
                assert made.user_index[k] in train_users
                prompt = next(prompts)
                assert anchor in prompt and f"of the kind {candidate['category']}" in prompt
                assert ("USER_PROFILE" in prompt) == (k >= 10) == (candidate["user"] is not None)
                if candidate["user"] is not None:
                    assert train_users[candidate["user"]] == made.user_index[k]
                    assert profiles[int(made.user_index[k])] in prompt
                expected = utility_by_hand(scorer, made.next_embeddings[k], made.user_index[k])[0]
                assert made.next_utilities[k] == pytest.approx(expected, rel=1e-4, abs=1e-4)
                asked = grammar.mentions(candidate["action"] or "")
                is_good = bool(asked) and asked[0][0] != "excluded"
                assert made.is_valid[k] == is_good
                if is_good:
                    film = grammar.parse_film(anchor) | dict(asked)
                    assert grammar.parse_film(texts[k]) == film
                else:
                    assert texts[k] == anchor
        valid = np.array([made.is_valid for made in sets])
        assert valid.any() and not valid.all()
        facts = stage.read_json("facts.json")
        assert facts["candidates"] == 60
        no_action = sum(action is None for made in sets for action in made.actions)
        assert facts["action:empty_block"] == no_action > 0
        assert facts["environment:missing_block"] == np.sum(~valid) - no_action > 0

    def test_a_complete_stage_is_read_and_an_interrupted_one_goes_on(self, run, tmp_path):
        stage, sets = run()
        assert len(run.prompts) == 60
        _, again = run()
        assert run.prompts == []
        (stage.path / "MANIFEST.json").unlink()
        (stage.path / "parts" / "00001.json").unlink()
        _, resumed = run()
        assert len(run.prompts) == 20  # the second chunk has one entity
        for other in (again, resumed):
            for one, two in zip(sets, other, strict=True):
                assert (one.entity_index, one.actions) == (two.entity_index, two.actions)
                for name in ("user_index", "next_embeddings", "next_utilities", "is_valid"):
                    np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        _, different = run(seed=6)
        assert [s.actions for s in different] != [s.actions for s in sets]


def test_entities_with_too_few_valid_candidates_are_left_out():
    def candidate_set(entity, is_valid):
        count = len(is_valid)
        embeddings, utilities = np.zeros((count, 2)), np.zeros(count)
        valid = np.array(is_valid, bool)
        return CandidateSet(entity, ["a"] * count, np.arange(count), embeddings, utilities, valid)

    sets = [candidate_set(4, [1, 0, 1]), candidate_set(2, [0, 0, 1]), candidate_set(7, [1, 1, 1])]
    assert [row.entity_index for row in usable_sets(sets, 2)] == [4, 7]
    with pytest.raises(UserError, match="no entity of 3 has 4 candidates"):
        usable_sets(sets, 4)


def test_reference_pairs_are_policy_prompt_and_kept_action(catalogue):
    def candidate_set(entity, actions, users):
        count = len(actions)
        return CandidateSet(
            entity, actions, np.array(users), np.zeros((count, 2)), np.zeros(count), np.ones(count, bool)
        )

    sets = [
        candidate_set(4, ["use jazz music.", None, "explore grief."], [8, 9, 9]),
        candidate_set(2, ["explore grief.", "bring in revenge."], [9, 8]),
    ]
    profiles = {8: "genre: loves noir.", 9: "genre: loves horror."}
    pairs = reference_pairs(catalogue, COMPACT, profiles, sets, [[0, 2], [1]])
    expected = [
        (4, "genre: loves noir.", "use jazz music."),
        (4, "genre: loves horror.", "explore grief."),
        (2, "genre: loves noir.", "bring in revenge."),
    ]
    assert [target for _, target in pairs] == [f"{action} #END_ACTION" for *_, action in expected]
    assert [prompt for prompt, _ in pairs] == [
        "write an action that makes this film better for this user. "
        f"{catalogue.descriptions[entity]} "
        f"#BEGIN_USER_PROFILE {profile} #END_USER_PROFILE #BEGIN_ACTION"
        for entity, profile, _ in expected
    ]
    assert reference_pairs(catalogue, COMPACT, profiles, sets, [[], []]) == []
    with pytest.raises(ValueError, match="zip"):  # a choice for each set, or something is off
        reference_pairs(catalogue, COMPACT, profiles, sets, [[0]])


@pytest.fixture(scope="module")
def episodes(catalogue, split, scorer, profiles):
    return Episodes(catalogue, COMPACT, None, profiles, scorer, split.entities, split.users)


class TestEpisodes:
    @pytest.mark.parametrize("part", PARTS)
    def test_starts_come_from_their_own_part(self, episodes, catalogue, split, profiles, part):
        starts = episodes.draw_starts(part, np.random.default_rng(0), 200)
        assert {start.entity_index for start in starts} <= set(split.entities[part].tolist())
        assert {start.user_index for start in starts} == set(split.users[part].tolist())
        assert len({(start.entity_index, start.user_index) for start in starts}) > 20
        for start in starts[:20]:
            assert start.description == catalogue.descriptions[start.entity_index]
            assert start.profile == profiles[start.user_index]
        assert episodes.draw_starts(part, np.random.default_rng(0), 200) == starts

    def test_rewards_and_value_features_are_those_of_text_and_user(self, episodes, catalogue, scorer):
        states = [
            EpisodeState(entity_index=i, user_index=u, description=catalogue.descriptions[d], profile="", step=1)
            for i, u, d in ((0, 5, 7), (1, 6, 8), (0, 5, 9))
        ]
        embeddings = scorer.embed([state.description for state in states])
        by_hand = [utility_by_hand(scorer, z, s.user_index) for z, s in zip(embeddings, states, strict=True)]
        np.testing.assert_allclose(episodes.rewards(states), [u for u, *_ in by_hand], rtol=1e-4)
        features = episodes.value_features(states)
        users = scorer.user_embeddings[[5, 6, 5]]
        expected = np.hstack([embeddings, users, embeddings * users, [t[1:] for t in by_hand]])
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def test_eagle_is_compared_with_what_it_has_to_beat():
    rows = [
        EvalRow(system=ANCHOR, environment=None),
        EvalRow(system=REFERENCE, kind="uniform"),
        EvalRow(system=EAGLE, kind="uniform"),
        EvalRow(system=REFERENCE, kind="g_optimal"),
        EvalRow(system=EAGLE, kind="g_optimal"),
        EvalRow(system=REFERENCE, kind="g_optimal", environment=TRANSFER),
        EvalRow(system=EAGLE, kind="g_optimal", environment=TRANSFER),
        EvalRow(system=BEST_OF_N, kind="g_optimal", budget="5 x 1 steps (test_calls)"),
    ]
    assert [row.title for row in rows] == [
        "anchor",
        "reference policy, uniform",
        "EAGLE, uniform",
        "reference policy, g_optimal",
        "EAGLE, g_optimal",
        "reference policy, g_optimal, other environment",
        "EAGLE, g_optimal, other environment",
        "best of 5 x 1 steps (test_calls), g_optimal",
    ]
    pairs = comparison_pairs(rows, ["g_optimal"])
    assert len(pairs) == 8 and set(pairs) == set(
        [
            (rows[2], rows[0]),
            (rows[2], rows[1]),
            (rows[4], rows[0]),
            (rows[4], rows[3]),
            (rows[4], rows[7]),
            (rows[4], rows[2]),
            (rows[6], rows[0]),
            (rows[6], rows[5]),
        ]
    )
    assert comparison_pairs(rows[:2], ["uniform"]) == []
    # Whichever kinds are the extra ones are compared with the others.
    other = set(comparison_pairs(rows, ["uniform"]))
    assert other ^ set(pairs) == {(rows[4], rows[2]), (rows[2], rows[4])}
    elm = EvalRow(system=ELM_DECODER)  # calls no environment, so no other one
    assert elm.title == "ELM decoder"
    beside = comparison_pairs([*rows, elm], ["g_optimal"])
    assert set(beside) - set(pairs) == {(rows[4], elm), (rows[2], elm), (elm, rows[0])}


class TestToldEpisodes:
    def told(self, tmp_path, rows, kind, count):
        stage = StageFolder(tmp_path / "evaluation", {})
        records = [
            dataclasses.asdict(row) | {"scores": {"train": [{"utility": 1.0}, {"utility": 1.0 + gain}]}}
            for row, gain in rows
        ]
        stage.write_jsonl("records.jsonl", records)
        return [
            round(record["scores"]["train"][-1]["utility"] - 1.0, 6) for record in _told_episodes(stage, kind, count)
        ]

    def test_the_best_the_worst_and_what_lies_between(self, tmp_path):
        gains = [0.3, -1.0, 2.0, 0.5, 1.1]
        uniform, g_optimal = (EvalRow(system=EAGLE, kind=kind) for kind in ("uniform", "g_optimal"))
        elsewhere = dataclasses.replace(g_optimal, environment=TRANSFER)
        rows = [
            (EvalRow(system=ANCHOR, environment=None), 9.0),
            (EvalRow(system=REFERENCE, kind="g_optimal"), 7.0),
            (uniform, 0.2),
            (elsewhere, 6.0),
            (uniform, 0.4),
            *((g_optimal, gain) for gain in gains),
        ]
        assert self.told(tmp_path, rows, "g_optimal", 3) == [2.0, 0.5, -1.0]
        assert self.told(tmp_path, rows, "g_optimal", 5) == [2.0, 1.1, 0.5, 0.3, -1.0]
        assert self.told(tmp_path, rows, "uniform", 2) == [0.4, 0.2]


@pytest.mark.parametrize("name", ["minilens/nobody", "minilens/", "minilens", "no/such/folder"])
def test_a_model_that_is_not_there_is_named_with_those_that_are(name):
    with pytest.raises(
        UserError,
        match=f"config.models: '{name}' is neither one of .*minilens/environment_a.*minilens/policy.* nor a folder",
    ):
        load_model(name)
