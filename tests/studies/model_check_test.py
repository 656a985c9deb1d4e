"""`eagle-jax check-model`: what a model is, beside `transformers`, and what the shipped ones can play."""

import dataclasses
import re
import sys

import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.data.prompts import MalformedText
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.stages.models import load_model
from eagle_jax.studies.model_check import check_model, compared, draw_material, play
from experiments import cli
from tests.language_model.small_checkpoints import make_checkpoint

CONFIG = "--config=experiments/configs/eagle_minilens.py:quick"


def told(capsys, *arguments):
    """The printed lines by what they are about."""
    check_model([*arguments, CONFIG])
    lines = capsys.readouterr().out.splitlines()
    return {line[:24].strip(): line[25:] for line in lines}


def shares(lines):
    return {role: int(line.split()[0]) for role, line in lines.items() if re.match(r"\d+ of 10", line)}


def test_the_models_of_minilens_play_their_roles(capsys):
    lines = told(capsys, "minilens/environment_a")
    assert lines["family"] == "qwen3 (Qwen3ForCausalLM)" and lines["chat template"] == "none: prompts are continued"
    assert lines["unembedding"] == "tied to the embedding" and lines["end tokens"] == "'[END]'"
    difference = re.match(
        r"differ from those of `transformers` by (\S+) of their spread on \d+ tokens", lines["logits"]
    )
    assert 0 <= float(difference[1]) < 1e-4
    speed = re.match(r"(\d+) tokens/s in a batch of 10; (\S+) GiB of the process", lines["speed"])
    assert int(speed[1]) > 0 and 0.1 < float(speed[2]) < 100
    played = shares(lines)
    assert set(played) == {"generator, profiles", "generator, actions", "environment", "policy, untrained"}
    assert played["environment"] >= 9


def test_who_answers_in_every_role_is_counted_by_role():
    """A script whose ninth form lacks an answer: it is asked for its own texts, and only one is malformed."""
    asked, form = [], " 1 A 2 A 3 4 4 2 5 4 6 3 7 2 8 B 9 2 10 2 11 A "
    said = {
        "#BEGIN_USER_PROFILE": " likes fog ",
        "#BEGIN_ACTION": " add fog ",
        "#BEGIN_PLOT": " fog #END_PLOT #BEGIN_REASONS_TO_LIKE a #END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE b ",
        "#BEGIN_ANSWERS": form,
    }

    def answer(prompt, rng):
        asked.append(prompt.text)
        is_ninth = sum("rater form" in text for text in asked) == 9 and prompt.opening == "#BEGIN_ANSWERS"
        return form.replace(" 11 A", "") if is_ninth else said[prompt.opening]

    experiment = to_settings(EagleExperiment, load_config(CONFIG.removeprefix("--config=")))
    evaluation = dataclasses.replace(experiment.evaluation, rater=experiment.environment)
    experiment = dataclasses.replace(experiment, evaluation=evaluation)
    played = dict(play(ScriptedGenerator(answer), experiment, draw_material(experiment)))
    faults = {role: [text for text in texts if isinstance(text, MalformedText)] for role, texts in played.items()}
    assert [len(found) for found in faults.values()] == [0, 0, 0, 0, 1]
    assert faults["rater"][0].reason == "missing_answers"
    assert sum("#BEGIN_USER_PROFILE likes fog #END_USER_PROFILE" in text for text in asked) == 20  # policy and rater
    assert sum("#BEGIN_ACTION add fog #END_ACTION" in text for text in asked) == 10


def test_a_model_that_cannot_play_is_told_with_the_reason(capsys, tmp_path, monkeypatch):
    """A random one, whose second layer has a window and no rotary positions."""
    folder, _ = make_checkpoint("smollm3", tmp_path)
    lines = told(capsys, str(folder))
    assert lines["windows"] == "5 tokens in 1 layers" and "none in layers 1" in lines["positions"]
    assert sum(shares(lines).values()) < 15  # an end token at once leaves words that may pass for a block
    assert lines["environment"] == "0 of 10, 10 prompt_too_long"  # it has 96 positions
    model = load_model(str(folder))
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert compared(model, folder, "w1 w2") == "not compared: torch is not installed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "'nowhere' is neither one of minilens/"),
        ([], "the following arguments are required: model"),
        (["minilens/policy", "--config=nowhere.py"], "there is no file nowhere.py"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.COMMANDS["check-model"](arguments)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and said in told and told.count("\n") == 1
