"""Two stages: the first leaves the language model bit-equal, both resume as if never stopped."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import read_metrics
from eagle_jax.elm.model.training import ElmTrainingSettings, train_elm
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.sharding import MeshSettings, make_mesh, tree_shardings
from tests.elm.model.small_embedding_lm import COMPLETIONS, PROMPTS, on_base, small_model
from tests.learning.next_token import next_token_settings
from tests.same_run import Interrupted

STAGE = next_token_settings(num_steps=4, max_gradient_norm=1.0, checkpoint_every=2)
FULL = ElmTrainingSettings(stage1=STAGE, stage2=STAGE, mode2="full", lora=None)
LOW_RANK = dataclasses.replace(FULL, mode2="lora", lora=LoRA(rank=2, alpha=4.0, targets="query"))
NO_STAGE = dataclasses.replace(STAGE, num_steps=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model("qwen2_5", tmp_path_factory.mktemp("qwen2_5"), num_layers=1)


@pytest.fixture
def train(base, tmp_path):
    """Trains in the folder `name`; steps asked for are in `train.asked`."""

    def run(settings, name="run", stop_at=None, elm=None, **options):
        elm = elm or on_base(base)

        def draw_batches(step):
            run.asked.append(step)
            if step == stop_at:
                raise Interrupted
            rows = np.random.default_rng(step).permutation(4)
            return (elm.encode([PROMPTS[r] for r in rows], [COMPLETIONS[r] for r in rows]),)

        run.asked = []
        return train_elm(
            elm,
            draw_batches,
            settings,
            jax.random.key(9),
            checkpoint_folder=tmp_path / name / "checkpoints",
            digest="d",
            metrics_folder=tmp_path / name / "metrics",
            description="test",
            **options,
        )

    return run


def moved(before, after):
    """Paths of the leaves that differ; leaves of `after` that are new differ."""
    before, after = (flatten_dict(elm.model.params, sep="/") for elm in (before, after))
    return {p for p in after if p not in before or not np.array_equal(before[p], after[p])}


def test_stage_one_moves_adapters_only_stage_two_all_but_the_statistics(train, base, tmp_path):
    start = on_base(base)
    first = train(dataclasses.replace(FULL, stage2=NO_STAGE), "first", elm=start)
    assert first.trained == "adapter"
    paths = set(flatten_dict(start.model.params, sep="/"))
    adapters = {path for path in paths if path.startswith("adapter/")}
    statistics = {path for path in paths if path.startswith("adapter_input/")}
    assert len(adapters) == 8 and len(statistics) == 4
    assert moved(start, first) == adapters
    for one, other in zip(*map(jax.tree.leaves, (start.decoder.params, first.decoder.params)), strict=True):
        assert one is other  # the very arrays
    both = train(FULL, "both")
    assert train.asked == list(range(8)) and both.trained == "full"
    assert moved(first, both) == paths - statistics
    of_stages = (tmp_path / "both/metrics" / stage for stage in ("stage1", "stage2"))
    rows = [row for folder in of_stages for row in read_metrics(folder / "metrics.jsonl")]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 1, 2, 3, 4]
    losses = [row["loss"] for row in rows]
    assert losses[3] < losses[0] and losses[7] < losses[3] - 0.1
    assert list((tmp_path / "both/metrics/stage1/tensorboard").iterdir())
    # Stage 1 of both runs is the same, step for step.
    assert rows[:4] == read_metrics(tmp_path / "first/metrics/stage1/metrics.jsonl")


def test_low_rank_updates_and_adapters_are_trained_on_the_bases_own_arrays(train, base):
    start = on_base(base)
    low_rank = train(LOW_RANK, elm=start)
    changed = moved(start, low_rank)
    assert low_rank.trained == "lora"
    assert {path.split("/")[-1] for path in changed if path.startswith("layers/")} == {"lora_down", "lora_up"}
    assert {path.split("/")[0] for path in changed} == {"adapter", "layers"}
    kernel = low_rank.model.params["layers"]["0"]["attention"]["query"]["kernel"]
    assert kernel is base.params["layers"]["0"]["attention"]["query"]["kernel"]
    assert not np.allclose(low_rank.log_probs(PROMPTS, COMPLETIONS), start.log_probs(PROMPTS, COMPLETIONS), atol=0.1)


def test_killed_in_either_stage_it_ends_where_an_uninterrupted_run_does(train, tmp_path):
    whole = train(LOW_RANK, "whole")
    with pytest.raises(Interrupted):
        train(LOW_RANK, "cut", stop_at=3)
    with pytest.raises(Interrupted):
        train(LOW_RANK, "cut", stop_at=7)
    assert train.asked == [2, 3, 4, 5, 6, 7]  # from stage 1's checkpoint, over the boundary
    resumed = train(LOW_RANK, "cut")
    assert train.asked == [6, 7]
    chex.assert_trees_all_equal(resumed.model.params, whole.model.params)
    for stage in ("stage1", "stage2"):
        logs = [tmp_path / name / "metrics" / stage / "metrics.jsonl" for name in ("cut", "whole")]
        assert logs[0].read_text() == logs[1].read_text()


def test_what_is_measured_is_logged(train, tmp_path):
    def norm_of_adapters(params):
        return {"norm": sum(np.sum(np.square(x)) for x in jax.tree.leaves(params["adapter"]))}

    done = train(dataclasses.replace(FULL, stage2=NO_STAGE), measure=norm_of_adapters)
    rows = read_metrics(tmp_path / "run/metrics/stage1/metrics.jsonl")
    np.testing.assert_allclose(rows[-1]["norm"], norm_of_adapters(done.model.params)["norm"])


def test_training_on_eight_devices_is_training_on_one(train, base):
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    placed = jax.device_put(base.params, tree_shardings(mesh, base.params))
    settings = dataclasses.replace(FULL, stage1=NO_STAGE)
    sharded = train(settings, "sharded", elm=on_base(dataclasses.replace(base, params=placed)))
    alone = train(settings, "alone")
    np.testing.assert_allclose(
        sharded.log_probs(PROMPTS, COMPLETIONS), alone.log_probs(PROMPTS, COMPLETIONS), atol=5e-3
    )


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="mode2 'lora': lora is to be given"):
        dataclasses.replace(FULL, mode2="lora")
    with pytest.raises(UserError, match="mode2 'full': lora is to be given"):
        dataclasses.replace(LOW_RANK, mode2="full")
