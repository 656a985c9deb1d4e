"""Table rows and comparisons, worked by hand."""

import dataclasses
import math

import numpy as np
import pytest

from eagle_jax.data.catalogue import EditOutcome
from eagle_jax.data.prompts import MalformedText
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.evaluation.table import MEASURES, Resampling, compare, malformed_counts, summarize
from eagle_jax.reports.statistics import BootstrapSettings, bootstrap_interval, crossed_interval
from tests.eagle.evaluation.records import make_record

BOOTSTRAP = BootstrapSettings(num_resamples=500, confidence=0.95, seed=0)
RESAMPLING = Resampling(BOOTSTRAP)


def record(pair, anchor, final, held_out=(0.0, 0.0), seed=0, steps=2, **changes):
    def made(first, last):
        utilities = [first, *([0.0] * (steps - 1)), last] if steps else [first]
        taken = [Step(action="b", description="b", malformed=None)] * steps
        return make_record(utilities, taken, seed=seed, entity_index=pair, user_index=pair, **changes)

    scores = {"train": made(anchor, final).scores["train"], "held_out": made(*held_out).scores["held_out"]}
    return dataclasses.replace(made(anchor, final), scores=scores)


def means(row):
    return {name: cell and cell["mean"] for name, cell in row["cells"].items()}


def test_a_row_by_hand():
    records = [
        record(0, 1.0, 3.0, held_out=(1.0, 0.5)),
        record(1, 2.0, 1.0, held_out=(1.0, 2.0), malformed={"action:length": 1}),
    ]
    (row,) = summarize({"r": records}, RESAMPLING, best_reachable={(0, 0): 4.0, (1, 1): 4.0})
    assert (row["num_episodes"], row["num_pairs"], row["num_seeds"]) == (2, 2, 1)
    got = means(row)
    assert got["train/utility"] == 2.0
    assert got["train/user_term"] == 1.0
    assert got["train/neighbor_distance_term"] == 0.5
    assert got["train/gain"] == 0.5  # (2 - 1) / 2
    assert got["train/improved_share"] == 0.5
    assert got["train/gain_if_better"] == 1.0  # (2 + 0) / 2
    assert got["train/reachable_share"] == pytest.approx(0.2)  # 0.5 / ((3 + 2) / 2)
    assert got["held_out/gain"] == 0.25  # (-0.5 + 1) / 2
    assert got["held_out/gain_if_better"] == -0.25  # the training encoder offers the first only
    assert got["well_formed_share"] == 0.75  # (1 + 1/2) / 2
    assert got["environment_calls"] == 2.0
    assert got["followed_share"] is None  # no oracle
    assert set(row["cells"]) == {measure.name for measure in MEASURES} - {"train/quality"}


def with_scores(record, quality):
    *before, last = record.scores["train"]
    last = {**last, "quality": quality, "reward": last["utility"] + quality}
    return dataclasses.replace(record, scores={**record.scores, "train": (*before, last)})


def test_quality_has_a_column_where_there_is_one():
    judged = [with_scores(record(place, 1.0, 3.0), quality) for place, quality in enumerate((-1.0, -2.0))]
    rows = summarize({"plain": [record(0, 1.0, 2.0), record(1, 1.0, 2.0)], "judged": judged}, RESAMPLING)
    assert [row["cells"]["train/quality"] and row["cells"]["train/quality"]["mean"] for row in rows] == [None, -1.5]
    assert means(rows[1])["train/utility"] == 3.0  # U stays what it is


def test_pairs_are_the_unit_and_seeds_are_averaged_inside():
    records = [record(pair, 0.0, pair + seed, seed=seed) for pair in range(6) for seed in (0, 2)]
    (row,) = summarize({"r": records}, RESAMPLING)
    assert (row["num_pairs"], row["num_seeds"]) == (6, 2)
    expected = bootstrap_interval([pair + 1.0 for pair in range(6)], BOOTSTRAP)
    cell = row["cells"]["train/utility"]
    assert (cell["mean"], cell["low"], cell["high"]) == (expected.mean, expected.low, expected.high)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_an_anchor_has_no_steps_to_measure():
    records = [record(pair, 1.0, 1.0, steps=0) for pair in (0, 1)]
    (row,) = summarize({"anchor": records}, RESAMPLING)
    got = means(row)
    assert got["well_formed_share"] is None
    assert (got["train/gain"], got["train/improved_share"], got["environment_calls"]) == (0, 0, 0)


class Oracle:
    """Texts are single letters; "?" cannot be read; an action names the letter it wants."""

    def judge_edit(self, before, action, after):
        if after == "?":
            return EditOutcome(well_formed=False, followed=False, kept=0.0)
        if before == "?":
            raise MalformedText("missing_slot", before)
        return EditOutcome(well_formed=True, followed=after == action, kept=0.5)


def test_edits_are_judged_where_the_world_can_read():
    steps = (
        Step(action="b", description="b", malformed=None),  # followed
        Step(action=None, description="b", malformed="action:length"),  # not an edit
        Step(action="c", description="?", malformed=None),  # not followed, and nothing kept
        Step(action="d", description="d", malformed=None),  # starts from what cannot be read
    )
    first = record(0, 0.0, 1.0, steps=4)
    records = [
        dataclasses.replace(first, steps=steps),
        dataclasses.replace(first, entity_index=1, steps=(*steps[:3], steps[2])),
    ]
    (row,) = summarize({"r": records}, RESAMPLING, oracle=Oracle())
    got = means(row)
    assert got["followed_share"] == 0.5
    assert got["kept_share"] == 0.25
    assert got["readable_share"] == 0.5


def test_reachable_share_needs_every_pair_and_finite_numbers():
    records = {"r": [record(pair, 1.0, 2.0) for pair in (0, 1)]}
    with pytest.raises(ValueError, match=r"row 'r'.*\(1, 1\)"):
        summarize(records, RESAMPLING, best_reachable={(0, 0): 3.0})
    with pytest.raises(ValueError, match="row 'r'.*not finite"):
        summarize(records, RESAMPLING, best_reachable={(0, 0): 3.0, (1, 1): math.nan})
    (row,) = summarize(records, RESAMPLING, best_reachable={(0, 0): 1.0, (1, 1): 1.0})
    assert row["cells"]["train/reachable_share"] is None  # nothing to gain


def test_nan_is_refused_with_row_and_column():
    records = {"r": [record(0, 1.0, 2.0), record(1, 1.0, 2.0, distance=math.nan)]}
    with pytest.raises(ValueError, match="row 'r', column 'distance'"):
        summarize(records, RESAMPLING)


def test_comparisons_pair_the_starts_and_say_what_is_separated():
    offsets = [0.0, 10.0, 20.0, 30.0]
    records = {
        "high": [record(i, 0.0, 100.0 + x) for i, x in enumerate(offsets)],
        "low": [record(i, 0.0, x) for i, x in enumerate(offsets)],
        # one more than "low" at every start: surely higher, though the rows' intervals overlap
        "near": [record(i, 0.0, x + 1.0) for i, x in reversed(list(enumerate(offsets)))],
    }
    rows = compare(records, [("high", "low"), ("near", "low"), ("low", "near")], RESAMPLING)
    train = [row for row in rows if row["encoder"] == "train"]
    assert [row["separated"] for row in train] == [True, False, False]
    assert train[1]["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert train[2]["difference"]["high"] == -1.0
    held_out = [row for row in rows if row["encoder"] == "held_out"]
    assert [row["difference"]["mean"] for row in held_out] == [0.0, 0.0, 0.0]
    assert not any(row["separated"] for row in held_out)
    with pytest.raises(ValueError, match="'high' and 'other'.*same starts"):
        compare({**records, "other": records["low"][:3]}, [("high", "other")], RESAMPLING)


def test_comparisons_use_the_intervals_of_the_table():
    records = {name: [record(i, 0.0, scale * i) for i in (4, 2, 0, 1, 3)] for name, scale in (("a", 1.0), ("b", 2.0))}
    table = {row["row"]: row["cells"]["train/utility"] for row in summarize(records, RESAMPLING)}
    comparison = compare(records, [("a", "b")], RESAMPLING)[0]
    assert comparison["utility"] == table["a"] and comparison["baseline_utility"] == table["b"]


def rating(user, rater, distance, consistency=1.0):
    return {"user_utility": user, "rater_utility": rater, "distance_score": distance, "consistency": consistency}


def test_rater_columns_are_means_over_what_was_rated():
    records = [
        record(0, 0.0, 1.0, seed=0, rater=rating(1.0, 0.0, 0.25)),
        record(0, 0.0, 1.0, seed=1, rater=rating(0.0, 0.0, 0.75, 0.5)),
        record(1, 0.0, 1.0, seed=0, rater=rating(1.0, 1.0, 0.5)),
        record(1, 0.0, 1.0, seed=1),  # not rated: no 0, the pair's other seed speaks
        record(2, 0.0, 1.0),
    ]
    (row,) = summarize({"r": records}, RESAMPLING)
    got = means(row)
    assert got["rater/user_utility"] == 0.75  # ((1 + 0) / 2 + 1) / 2
    assert got["rater/rater_utility"] == 0.5  # (0 + 1) / 2
    assert got["rater/distance_score"] == 0.5  # ((0.25 + 0.75) / 2 + 0.5) / 2
    assert got["rater/consistency"] == 0.875  # ((1 + 0.5) / 2 + 1) / 2
    expected = bootstrap_interval([0.5, 1.0], BOOTSTRAP)
    cell = row["cells"]["rater/user_utility"]
    assert (cell["low"], cell["high"]) == (expected.low, expected.high)


def test_one_rated_pair_out_of_many_has_no_interval():
    records = [record(0, 0.0, 1.0, rater=rating(1.0, 1.0, 1.0)), record(1, 0.0, 1.0)]
    (row,) = summarize({"r": records}, RESAMPLING)
    assert row["cells"]["rater/user_utility"] is None
    assert row["cells"]["train/utility"] is not None
    with pytest.raises(ValueError, match="at least two"):  # one start is no evaluation
        summarize({"r": records[:1]}, RESAMPLING)


def test_what_was_malformed_is_counted_by_kind_and_answers_are_no_steps():
    records = {
        "r": [
            record(0, 0.0, 1.0, rater=rating(1.0, 1.0, 1.0), malformed={"action:length": 1}),
            record(1, 0.0, 1.0, malformed={"action:length": 1, "environment:length": 1}),
        ]
    }
    counts = malformed_counts(records, {"r": {"length": 1, "not_a_choice": 2}})
    of_steps = {"action:length": 2, "environment:length": 1}
    of_answers = {"rater:length": 1, "rater:not_a_choice": 2}
    assert counts == {"r": {"num_steps": 4, "num_forms": 4, "reasons": of_steps | of_answers}}
    (row,) = summarize(records, RESAMPLING)
    assert row["cells"]["well_formed_share"]["mean"] == 0.25  # (1/2 + 0) / 2


def test_crossed_intervals_resample_anchors_users_and_seeds_at_once():
    keys = [(anchor, user, seed) for anchor in range(6) for user in range(5) for seed in range(2)]
    effect = np.random.default_rng(0).normal(size=6)
    made = {
        name: [
            dataclasses.replace(record(0, 0.0, shift + effect[anchor]), entity_index=anchor, user_index=user, seed=seed)
            for anchor, user, seed in keys
        ]
        for name, shift in (("ours", 1.0), ("theirs", 0.0))
    }
    crossed = Resampling(BOOTSTRAP, crossed=True)
    cells = {row["row"]: row["cells"]["train/utility"] for row in summarize(made, crossed)}
    values = [1 + effect[anchor] for anchor, _, _ in keys]
    assert cells["ours"] == crossed_interval(values, BOOTSTRAP, *zip(*keys, strict=True)).as_cell()
    narrow = summarize(made, RESAMPLING)[0]["cells"]["train/utility"]
    assert narrow["high"] - narrow["low"] < cells["ours"]["high"] - cells["ours"]["low"]
    (of_train, _) = compare(made, [("ours", "theirs")], crossed)
    assert of_train["difference"] == pytest.approx({"mean": 1.0, "low": 1.0, "high": 1.0})  # whoever is drawn
    one_seed = {name: [own for own in of_row if own.seed == 0] for name, of_row in made.items()}
    cell = summarize(one_seed, crossed)[0]["cells"]["train/utility"]
    two = zip(*[key[:2] for key in keys if key[2] == 0], strict=True)
    assert cell == crossed_interval(values[::2], BOOTSTRAP, *two).as_cell()


def test_a_column_told_of_one_anchor_alone_has_no_crossed_interval():
    made = [dataclasses.replace(record(0, 0.0, 1.0), user_index=user, entity_index=user) for user in range(3)]
    made[0] = dataclasses.replace(made[0], rater={"consistency": 1.0})
    (row,) = summarize({"r": made}, Resampling(BOOTSTRAP, crossed=True))
    assert row["cells"]["rater/consistency"] is None and row["cells"]["train/utility"]["mean"] == 1.0


def test_what_texts_gain_with_fields_held_has_columns_of_its_own():
    path, held = ({"utility": 1.0}, {"utility": 3.0}), ({"utility": 1.0}, {"utility": 1.5})
    scores = {"train": path, "held_out": path, "held_out_plot": held}
    (row,) = summarize(
        {"r": [dataclasses.replace(record(pair, 0.0, 1.0), scores=scores) for pair in (0, 1)]}, RESAMPLING
    )
    assert row["cells"]["held_out/gain"]["mean"] == 2.0 and row["cells"]["held_out_plot/gain"]["mean"] == 0.5
    assert "train_plot/gain" not in row["cells"]
