"""Baselines of ELM: prompts for a model that reads names only."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import cut_spans
from eagle_jax.data.tasks import TASKS, teacher_prompt
from eagle_jax.elm.evaluation.baselines import item_mixture_prompt, text_only_prompts, user_mixture_prompt
from eagle_jax.elm.evaluation.consistency import read_outputs
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator

TITLES = ["Amber", "Basalt", "Copper", "Dolomite"] + [f"Film {i}" for i in range(8)]


def row(task, items, user=None, **more):
    return {"task": task, "items": items, "user": user, **more}


@pytest.mark.parametrize("book", ["compact", "detailed", "chat"])
def test_names_alone_are_what_the_teacher_sees(book):
    rows = [row("summary", [1]), row("user_profile", [*range(10)], 7), row("similarities", [0, 2])]
    rows = rows[: 2 if book == "chat" else 3]
    prompts = text_only_prompts(book, rows, TITLES)
    shown = (["Basalt"], TITLES[:10], ["Amber", "Copper"])[: len(rows)]
    expected = [teacher_prompt(book, TASKS[r["task"]], t) for r, t in zip(rows, shown, strict=True)]
    assert prompts == expected
    assert not any("<item>" in p.text or "<user>" in p.text for p in prompts)


@pytest.mark.parametrize("book", ["compact", "detailed"])
def test_one_example_stands_before_the_question(book):
    examples = {"summary": row("summary", [3], target="a film of #BEGIN_PLOT stone.")}
    (prompt,) = text_only_prompts(book, [row("summary", [1])], TITLES, examples)
    (plain,) = text_only_prompts(book, [row("summary", [1])], TITLES)
    assert prompt.text.endswith(plain.text) and prompt.stop == plain.stop
    assert prompt.text.count("a film of BEGIN_PLOT stone. #END_ANSWER") == 1
    assert prompt.text.index("Dolomite") < prompt.text.index("#END_ANSWER")
    assert prompt.text.index("#END_ANSWER") < prompt.text.index("Basalt")
    # Where there is no room, the example's answer is what gives way.
    cut = [prompt.text[start:stop].strip() for start, stop in cut_spans(prompt)]
    assert cut == ["a film of BEGIN_PLOT stone."]
    writer = ScriptedGenerator(lambda prompt, rng: " a film of lava. #END_ANSWER and more")
    sampling = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=9)
    assert read_outputs(book, writer.generate([prompt], sampling, 0)).texts == ["a film of lava."]


def test_examples_are_there_and_tell_nothing_of_the_row():
    rows = [row("pitch", [1])]
    with pytest.raises(UserError, match="no example of task 'pitch': have summary"):
        text_only_prompts("compact", rows, TITLES, {"summary": row("summary", [3], target="x")})
    with pytest.raises(UserError, match="'pitch' is a row that is to be scored"):
        text_only_prompts("compact", rows, TITLES, {"pitch": row("pitch", [1], target="x")})
    with pytest.raises(UserError, match="no task 'sing'"):
        text_only_prompts("compact", [row("sing", [1])], TITLES)


@pytest.mark.parametrize("book", ["compact", "detailed"])
def test_mixtures_are_told_by_names_and_by_profiles(book):
    prompt = item_mixture_prompt(book, TASKS["pitch"], "Amber", "Basalt #END_ANSWER")
    assert "the film between Amber and Basalt END_ANSWER" in prompt.text
    profiles = user_mixture_prompt(book, TASKS["user_profile"], "likes rain.", "likes sun.")
    assert [profiles.text[a:b].strip() for a, b in cut_spans(profiles)] == ["likes rain.", "likes sun."]
    assert profiles.text.endswith(profiles.opening)
