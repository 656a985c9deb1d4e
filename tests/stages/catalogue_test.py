"""Stage 1 on tables that lack what its facts are computed from: what is absent has a reason."""

import dataclasses

import numpy as np
import pytest

from eagle_jax import stages
from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.prompts import MOVIE, PRODUCT
from eagle_jax.data.splits import Split
from eagle_jax.embeddings.wals import WALSOutput, fit_wals
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.stages.catalogue import catalogue_facts, run_catalogue_stage, wals_facts, write_names
from tests.small_world import WALS

NUM_BAD_ROWS = 1234  # more than are listed


def run(tmp_path, num_held_out, wals=WALS, mesh=None, **changes):
    """Four users rate three of four items; the first `num_held_out` ratings are held out."""
    user, item = np.divmod(np.arange(12, dtype=np.int32), 3)
    table = RatingTable(
        user_names=tuple("abcd"),
        item_names=tuple("wxyz"),
        user_index=user,
        item_index=((item + user) % 4).astype(np.int32),
        rating=np.arange(12, dtype=np.float32),
    )
    catalogue = Catalogue(
        name="x",
        entities=tuple(Entity(entity_id=name, title=name, description="") for name in table.item_names),
        ratings=table,
        tags=(),
        entity_format=PRODUCT,
        **changes,
    )
    train, test = table.take(np.arange(num_held_out, 12)), table.take(np.arange(num_held_out))
    stage = StageFolder(tmp_path / "catalogue", {})
    report = {"bad_rows": [{}] * 3, "num_bad_rows": NUM_BAD_ROWS}
    run_catalogue_stage(stage, catalogue, report, Split(train, test, {}, {}), wals, 0, mesh)
    return {fact["name"]: fact for fact in catalogue_facts(stage)}


@pytest.mark.parametrize("num_held_out", [0, 4])
def test_facts_that_cannot_be_computed_are_absent_with_a_reason(tmp_path, num_held_out):
    facts = run(tmp_path, num_held_out)
    ranked = facts["rank_correlation_within_users"]
    assert ranked["value"] is None and "absent: of the held-out ratings: no user has 5 ratings" in ranked["meaning"]
    error = facts["held_out_rmse"]
    if num_held_out:
        assert error["value"] > 0 and "absent" not in error["meaning"]
    else:
        assert error["value"] is None and error["meaning"].endswith("absent: no rating is held out")
    assert facts["bad rows"]["value"] == NUM_BAD_ROWS


def test_implicit_feedback_needs_a_weight_of_what_was_not_done(tmp_path):
    with pytest.raises(UserError, match="config.wals.unobserved_weight is 0, and the feedback is implicit"):
        run(tmp_path, 0, is_implicit=True)
    weighted = dataclasses.replace(WALS, unobserved_weight=0.1)
    assert np.isfinite(run(tmp_path, 0, weighted, is_implicit=True)["objective_last"]["value"])


def test_the_mesh_of_the_config_is_that_of_wals(tmp_path, monkeypatch):
    used = []

    def fit(ratings, settings, key, mesh):
        used.append(mesh.shape)
        return fit_wals(ratings, settings, key, mesh)

    monkeypatch.setattr(stages.catalogue, "fit_wals", fit)
    mesh = MeshSettings(data=2, fsdp=4, tensor=1, first_device=0)
    facts = run(tmp_path, 0, mesh=mesh)
    assert used == [{"data": 2, "fsdp": 4, "tensor": 1}] * 2
    assert facts["objective_last"]["value"] < facts["objective_first"]["value"]


def test_the_rows_of_arrays_are_named_in_their_order(tmp_path):
    """Rows of a selection tell the position in the catalogue; where no users are, there is no file of them."""
    entities = tuple(Entity(entity_id=f"f{i}", title=f"Film {i}", description="") for i in range(4))
    none = np.zeros(0, np.int32)
    names = tuple(entity.entity_id for entity in entities)
    ratings = RatingTable(user_names=("ann", "bob"), item_names=names, user_index=none, item_index=none, rating=none)
    catalogue = Catalogue(name="x", entities=entities, ratings=ratings, tags=(), entity_format=MOVIE)
    both, some = (StageFolder(tmp_path / name, {}) for name in ("both", "some"))
    write_names(both, catalogue, range(4), range(2))
    write_names(some, catalogue, np.array([3, 1]), ())
    assert both.read_jsonl("users.jsonl") == [{"user_index": 0, "user_id": "ann"}, {"user_index": 1, "user_id": "bob"}]
    assert [row["item_id"] for row in both.read_jsonl("items.jsonl")] == list(names)
    assert some.read_jsonl("items.jsonl") == [
        {"item_index": 3, "item_id": "f3", "title": "Film 3"},
        {"item_index": 1, "item_id": "f1", "title": "Film 1"},
    ]
    assert not (tmp_path / "some" / "users.jsonl").exists()


def test_facts_about_wals_agree_with_a_float64_loop(world):
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
        errors, test = [], world.split.test
        for u, i, r in zip(test.user_index, test.item_index, test.rating, strict=True):
            predicted = 3.4 + float(output.user_bias[u]) + float(output.item_bias[i])
            if with_embeddings:
                predicted += np.float64(output.user_embeddings[u]) @ output.item_embeddings[i]
            errors.append(min(5.0, max(0.5, predicted)) - r)  # a rating has a scale
        return np.sqrt(np.mean(np.square(errors)))

    train = world.split.train.rating
    assert (train.min(), train.max()) == (0.5, 5.0)
    facts = wals_facts(world.catalogue, world.split, output, baseline)
    assert facts["held_out_rmse"] == pytest.approx(rmse(True), rel=1e-5)
    assert facts["baseline_rmse"] == pytest.approx(rmse(False), rel=1e-5)
    assert (facts["num_entities"], facts["num_users"]) == (120, 60)
    assert facts["num_training_ratings"] + facts["num_held_out_ratings"] == len(world.catalogue.ratings)
    assert (facts["objective_first"], facts["objective_last"]) == (9.0, 4.0)
