"""What the benchmark's contenders compute agrees, and its tables hold what was measured.

How long anything takes is not tested.
"""

import contextlib
import importlib
import json

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import (
    language_models,
    lm_accelerator,
    lm_comparisons,
    lm_inputs,
    lm_programs,
    lm_table,
    rounds,
    sentence_contenders,
)
from benchmarks.lm_comparisons import Comparison, Contender
from benchmarks.lm_table import Found, Measurement, Piece, Share, verdicts
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.decoder.transformer import forward, init_params

TINY = {
    "hidden_size": 32,
    "num_layers": 1,
    "vocab_size": 64,
    "batch": 3,
    "prompt_length": 4,
    "new_tokens": 5,
    "train_batch": 3,
    "length": 8,
    "action_length": 3,
    "sentences": 10,
    "sentence_batch": 4,
    "product_size": 64,
    "rounds": 1,
}


class WorkerHere:
    """A contender in this process: importing the libraries once is most of what tests can save."""

    def __init__(self, contender, settings):
        module, _, function = contender.partition(":")
        try:
            self.make = getattr(importlib.import_module(module), function)
        except ModuleNotFoundError:
            self.make = None
        self.settings, self.turns = json.loads(json.dumps(settings)), 0

    def wait_until_ready(self):
        if self.make is None:
            raise rounds.MissingPeer("it is not installed")
        self.turn = self.make(**self.settings)
        return 1.0

    def run(self):
        seconds, values = self.turn(self.turns)
        self.turns += 1
        return rounds.Turn(seconds, 1.0, json.loads(json.dumps(values)), 2.0)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """results.json and results.md of the whole benchmark on tiny shapes, in this process."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("benchmark")
    options = {**TINY, "out": str(folder), "depths": "1", "widths": "32", "only": ",".join(language_models.SECTIONS)}

    def worker_here(contender, settings, **_):
        return contextlib.nullcontext(WorkerHere(contender, settings))

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(threads))
        for module in (rounds, lm_comparisons):
            patch.setattr(module, "worker", worker_here)
        with flagsaver.flagsaver():
            flags.FLAGS(["benchmark", *(f"--{name}={value}" for name, value in options.items())])
            language_models.main([])
    flags.FLAGS.unparse_flags()
    return json.loads((folder / "results.json").read_text()), (folder / "results.md").read_text()


def test_every_part_has_its_rows(record):
    found, page = record
    have = {(m["section"], m["setting"], m["who"]) for m in found["measurements"]}
    expected = {
        ("sampling", setting, who)
        for setting in ("top_p 0.95", "top_p 1", "greedy", "shared beginning")
        for who in ("ours", "PyTorch generate")
    }
    expected |= {("sft", "3 x 8 tokens", who) for who in ("ours", "PyTorch")}
    expected |= {("reinforce", "exact KL", who) for who in ("ours", "PyTorch")}
    expected |= {
        ("compile", "1 layers", who) for who in ("training step, scanned", "training step, unrolled", "sampler")
    }
    assert expected <= have
    assert {(s["program"], s["width"]) for s in found["shares"]} == {("forward", 32), ("training step", 32)}
    assert found["accelerator"] == {"note": "no accelerator here"}
    for title in ("## Targets", "## Times", "## Share of", "## Parts of", "no accelerator here"):
        assert title in page


def test_peers_compute_the_same(record):
    found, _ = record
    same = [target for target in found["targets"] if "the same as" in target["target"]]
    sections = {target["target"].partition(":")[0] for target in same}
    assert sections >= {"sampling", "sft", "reinforce"}
    assert all(target["is_met"] for target in same), same
    if importlib.util.find_spec("sentence_transformers") and sentence_contenders.packaged_folder():
        assert "sentences" in sections


def test_agreement_can_fail():
    tokens = {"tokens": [[1, 2], [3, 4]]}
    assert lm_comparisons.equal_tokens(tokens, {"tokens": [[1, 2], [3, 5]]}) == ("3 of 4 tokens equal", False)
    assert not lm_comparisons.close_losses({"loss": [8.0, 7.0]}, {"loss": [8.0, 7.1]})[1]
    assert lm_comparisons.close_losses({"kl": [0.0, 2.0]}, {"kl": [1e-8, 2.0001]})[1]
    assert not lm_comparisons.close_embeddings({"embeddings": [[0.6, 0.8]]}, {"embeddings": [[0.6, 0.8001]]})[1]


@pytest.fixture
def contenders(tmp_path, monkeypatch):
    """A module for worker processes, which import next to nothing."""
    (tmp_path / "made_up.py").write_text(
        "import os, sys\n"
        "def timed(*, seconds):\n"
        "    print('noise on standard output')\n"
        "    def run(turn):\n"
        "        cores = len(os.sched_getaffinity(0)) if sys.platform == 'linux' else 1\n"
        "        return seconds[turn], {'turn': turn, 'cores': cores}\n"
        "    return run\n"
        "def absent():\n"
        "    import no_such_library\n"
        "def broken(**_):\n"
        "    raise OSError('the disk is gone')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_worker_answers_turn_by_turn(contenders):
    with rounds.worker("made_up:timed", {"seconds": [0.5, 0.25]}, cores=1) as process:
        assert process.wait_until_ready() > 1.0
        turns = [process.run(), process.run()]
    assert [turn.seconds for turn in turns] == [0.5, 0.25]
    assert [turn.values for turn in turns] == [{"turn": 0, "cores": 1}, {"turn": 1, "cores": 1}]
    with (
        rounds.worker("made_up:absent", {}, cores=1) as process,
        pytest.raises(rounds.MissingPeer, match="no_such_library is not installed"),
    ):
        process.wait_until_ready()
    with (
        rounds.worker("made_up:broken", {}, cores=1) as process,
        pytest.raises(RuntimeError, match="made_up:broken gave up(.|\n)*the disk is gone"),
    ):
        process.wait_until_ready()


def test_a_comparison_leaves_the_warm_up_out(contenders):
    def contender(who, seconds):
        return Contender(who=who, make="made_up:timed", settings={"seconds": seconds})

    comparison = Comparison(
        section="sampling",
        setting="made up",
        contenders=(
            contender("ours", [9.0, 1.0, 2.0]),
            contender("slower", [0.1, 3.0, 3.0]),
            Contender(who="absent", make="made_up:absent", settings={}),
        ),
        agreement=lambda ours, theirs: (f"{ours['turn']} {theirs['turn']}", True),
    )
    (ours, slower), missing = lm_comparisons.run(comparison, rounds=2, cores=1)
    assert missing == ["sampling: absent not measured, no_such_library is not installed"]
    assert (ours.first_call, ours.seconds, ours.ratios) == (9.0, (1.0, 2.0), (1.0, 1.0))
    assert (slower.first_call, slower.seconds, slower.ratios) == (0.1, (3.0, 3.0), (3.0, 1.5))
    assert (ours.agreement, slower.agreement, slower.agrees) == ("", "0 0", True)
    with pytest.raises(rounds.MissingPeer):
        lm_comparisons.run(
            Comparison(
                section="sft", setting="", contenders=(Contender(who="ours", make="made_up:absent", settings={}),)
            ),
            rounds=1,
            cores=1,
        )


def test_turns_are_taken_round_by_round():
    order = []
    runs = [lambda name=name: order.append(name) or name for name in "abc"]
    assert rounds.take_turns(runs, [2, 1, 2]) == [["a", "a"], ["b"], ["c", "c"]]
    assert "".join(order) == "abcac"


def measurement(section: str, setting: str, who: str, ratios: tuple[float, ...], **changes):
    settings = {
        "section": section,
        "setting": setting,
        "who": who,
        "seconds": ratios,
        "amount": 6.0,
        "unit": "tokens",
        "ratios": ratios,
        "busy_cores": 1.0,
        "first_call": 1.0,
        "memory_before": 100.0,
        "memory_peak": 200.0,
    }
    return Measurement(**settings | changes)


def test_misses_are_shown_as_misses():
    found = Found(
        measurements=[
            measurement("sampling", "top_p 1", "PyTorch generate", (1.4, 1.6, 1.7)),
            measurement("sampling", "greedy", "PyTorch generate", (0.1,), agrees=False),
            measurement("sampling", "top_p 1", "tunix", (1.1, 1.0, 9.0)),
        ],
        shares=[
            Share(program="forward", width=width, flops_per_second=(1e9,), shares=shares)
            for width, shares in ((256, (0.1,)), (512, (0.59, 0.7, 0.5)))
        ],
        pieces=[Piece(width=512, name="attention", seconds=(0.5,), share=0.25)],
    )
    judged = verdicts(found, ["sampling", "sft", "share"])
    assert [(v.target, v.setting, v.is_met) for v in judged] == [
        ("sampling: at least 1.5x PyTorch generate", "top_p 1", True),
        ("sampling: the same as PyTorch generate", "greedy", False),
        ("sampling: at least 1.2x tunix", "top_p 1", False),
        ("sft: at least 1x PyTorch", "", None),
        ("sft: at least 1x TRL SFTTrainer", "", None),
        ("at least 60% of a plain product's FLOP/s", "forward, d=512", False),
    ]
    page = lm_table.page({"processor": "none"}, found, judged)
    assert "| sampling: at least 1.2x tunix | top_p 1 | 1.1 [1, 9] | **missed** |" in page
    assert "| 512 | attention | 500 [500, 500] | 0.25 |" in page
    assert "| sampling | top_p 1 | tunix | 3 | 1.1 [1, 9] | 5 tokens | 1.1 [1, 9] |" in page


def test_flops_of_a_forward_pass_are_those_that_xla_counts():
    config = decoder_config_from_hf(lm_inputs.decoder_json(256, 2, 512, 32))
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    tokens, mask = (jax.ShapeDtypeStruct((4, 32), kind) for kind in (np.int32, bool))

    def logits(params, tokens, mask):
        return forward(config, params, tokens, mask).logits

    counted = jax.jit(logits).lower(params, tokens, mask).cost_analysis()["flops"]
    # XLA also counts norms, rotations and the like.
    assert 1.0 <= counted / lm_programs.forward_flops(config, 4, 32) < 1.05


def test_the_accelerator_part_runs_on_a_processor_too():
    decoder = lm_inputs.decoder_json(32, 1, 64, 16)
    values = lm_accelerator.measure(decoder, 2, 4, 3, 2, 8, product_size=32, copy_bytes=1 << 16)
    assert values["device"] == jax.devices()[0].device_kind
    assert all(value > 0.0 for value in values.values() if not isinstance(value, str))
    # 64 tokens and a layer of bfloat16 weights; 2 (keys, values) x 1 head x 16 x 2 rows x 7 slots x
    # 2 bytes of caches.
    weights = 64 * 32 + 32 + 2 * 32 + 2 * 16 + 2 * 32 * (32 + 16) + 3 * 32 * 96
    cached = 2 * 1 * 16 * 2 * 7 * 2
    expected = values["tokens/s"] / 2 * (2 * weights + cached) / values["measured bytes/s"]
    assert values["share of the bandwidth bound"] == pytest.approx(expected)


def test_texts_are_the_same_in_every_process(monkeypatch):
    monkeypatch.delenv("EAGLE_DATA", raising=False)
    short = sentence_contenders.texts("short", 50)
    assert short == sentence_contenders.texts("short", 50)
    assert all(4 <= len(text.split()) <= 12 for text in short)
    words = [len(text.split()) for text in sentence_contenders.texts("overviews", 500)]
    assert 45 < np.mean(words) < 55


def test_overviews_are_those_of_movielens(eagle_data):
    texts = sentence_contenders.texts("overviews", 20)
    assert len(set(texts)) == 20
    assert all(
        text in (eagle_data / "ml-latest-small" / "texts.csv").read_text()
        for text in [text for text in texts if '"' not in text]
    )
