"""Formats: what is shown and demanded, what becomes of an answer, how each fault is called, who is asked again."""

import dataclasses
from collections import Counter

import pytest

from eagle_jax.data.film_fields import parse_film_fields
from eagle_jax.data.preferences.dialogues import turns_and_start
from eagle_jax.data.prompts import COMPACT, DETAILED, MOVIE, PRODUCT, MalformedText, environment_prompt, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.roles.chat_words import SENTENCE, WHOLE, answer_start
from eagle_jax.eagle.roles.rewrite_formats import (
    REWRITE_FORMATS,
    RewriteSettings,
    read_rewriting,
    rewrite_prompt,
    split_fields,
)
from eagle_jax.language_model.generation import Generation, SamplingSettings

PLOT = "A dog runs away from a farm. Two children look for him in the hills."
ALONE = render_blocks({"PLOT": PLOT, "REASONS_TO_LIKE": "", "REASONS_TO_DISLIKE": ""})
FULL = render_blocks({"PLOT": PLOT, "REASONS_TO_LIKE": "dogs.", "REASONS_TO_DISLIKE": "hills."})
SPACE = "Set it in outer space."
NEW = "A dog runs away from a station on Mars. Two children look for him in the craters."
SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=60)


def written(text, stop_reason="stop"):
    return Generation(text=text, token_ids=None, log_probs=None, stop_reason=stop_reason)


def read(name, text, description=ALONE, stop_reason="stop", action=SPACE):
    return read_rewriting(name, MOVIE, description, action, written(text, stop_reason))


def with_plot(plot, description=ALONE):
    return description.replace(PLOT, plot)


@pytest.mark.parametrize("book", [COMPACT, DETAILED])
def test_marked_blocks_that_are_all_full_are_asked_for_as_ever(book):
    prompt = rewrite_prompt("blocks", book, MOVIE, FULL, SPACE)
    assert prompt == environment_prompt(book, MOVIE, FULL, SPACE)
    assert FULL in prompt.text and prompt.stop == ("#END_REASONS_TO_DISLIKE",)
    answer = f"{NEW} #END_PLOT #BEGIN_REASONS_TO_LIKE dogs. #END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE hills."
    assert read("blocks", answer, FULL) == with_plot(NEW, FULL)


def test_what_the_data_leave_empty_is_neither_shown_nor_demanded_and_stays_empty():
    for name in ("blocks", "one_block"):
        prompt = rewrite_prompt(name, COMPACT, MOVIE, ALONE, SPACE)
        assert "REASONS" not in prompt.text and prompt.stop == ("#END_PLOT",)
        assert prompt.text.endswith("#BEGIN_PLOT") and prompt.may_be_cut == ("PLOT",)
        assert read(name, NEW) == with_plot(NEW)
    two = render_blocks({"PLOT": PLOT, "REASONS_TO_LIKE": "", "REASONS_TO_DISLIKE": "hills."})
    assert rewrite_prompt("blocks", COMPACT, MOVIE, two, SPACE).stop == ("#END_REASONS_TO_DISLIKE",)
    answer = f"{NEW} #END_PLOT #BEGIN_REASONS_TO_DISLIKE craters."
    assert read("blocks", answer, two) == with_plot(NEW, two).replace("hills.", "craters.")


@pytest.mark.parametrize("name", ["one_block", "chat", "edit"])
def test_the_other_formats_write_the_first_block_and_leave_the_others(name):
    prompt = rewrite_prompt(name, COMPACT, MOVIE, FULL, SPACE)
    assert PLOT in prompt.text and "dogs." not in prompt.text
    assert read(name, NEW, FULL).endswith(FULL.partition("#END_PLOT")[2])


@pytest.mark.parametrize("name", ["chat", "edit"])
def test_a_chat_has_a_system_examples_and_the_request_last(name):
    prompt = rewrite_prompt(name, COMPACT, MOVIE, ALONE, SPACE)
    turns, start = turns_and_start(prompt.text + prompt.answer_start)
    roles = [turn["role"] for turn in turns]
    assert roles == ["system", *["user", "assistant"] * ((len(turns) - 2) // 2), "user"] and len(turns) > 5
    assert "film" in turns[0]["content"] and "#" not in prompt.text and "{" not in prompt.text
    assert turns[-1]["content"] == f"Plot: {PLOT}\nChange: {SPACE}"
    assert start == ("In outer space," if name == "edit" else "")
    # What is asked does not depend on the book: a chat has its own words.
    assert prompt == rewrite_prompt(name, DETAILED, MOVIE, ALONE, SPACE)
    assert "shirt" in rewrite_prompt(name, COMPACT, PRODUCT, ALONE.replace("PLOT", "DESCRIPTION"), SPACE).text


@pytest.mark.parametrize(
    "action, start",
    [
        ("Set it in Japan.", "In Japan,"),
        ("set it during the Second World War", "During the Second World War,"),
        ("Make it a courtroom drama.", "In this courtroom drama,"),
        ("Make it darker and more violent.", "In this darker and more violent version,"),
        ("Add a talking animal.", "Then a talking animal"),
        ("Make the hero an old woman.", "The hero is now an old woman"),
        ("Let the hero die at the end.", "In the end, the hero will die"),
        ("More jokes, please.", ""),
    ],
)
def test_an_edit_begins_with_the_change_as_a_statement(action, start):
    assert answer_start(SENTENCE, action) == start
    assert answer_start(WHOLE, action) == ""


def test_a_whole_answer_takes_the_place_of_the_text_and_an_edit_goes_on_from_it():
    assert read("chat", NEW) == with_plot(NEW)
    added = "In outer space, the dog hides in a capsule and meets a robot."
    assert read("edit", added) == with_plot(f"{PLOT} {added}")
    assert read("edit", f"{added} It dances.") == with_plot(f"{PLOT} {added}")
    open_end = with_plot("A dog runs")
    assert read("edit", added, open_end) == with_plot(f"A dog runs. {added}")


@pytest.mark.parametrize(
    "text, kept",
    [
        (f"{NEW} And then the two", NEW),
        (f"New plot: {NEW}", NEW),
        (f'"{NEW}"', NEW),
        (f"<think>Mars, perhaps.</think>\n{NEW}", NEW),
        (f"{NEW} Dr. No said to Mr. J. Smith", NEW),
        (f"{NEW[:-1]}?! He", f"{NEW[:-1]}?!"),
    ],
)
def test_an_answer_is_cut_behind_its_last_sentence(text, kept):
    assert read("chat", text, stop_reason="length") == with_plot(kept)


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("chat", "A dog that runs and runs and", "no_sentence"),
        ("chat", "<think>What would", "no_sentence"),
        ("chat", "A dog in space.", "too_short"),
        ("chat", "The dog, the dog and the cat, the dog and the cat, the dog and the cat.", "loop"),
        ("chat", PLOT, "copy"),
        ("edit", "Two children look for him in the hills of the moon.", "copy"),  # 6 of 8 fours
        ("edit", "In outer space, they run.", "too_short"),  # two words beside the start
        ("chat", f"{NEW} It is a good film.", "comment"),
        ("chat", f"{NEW} A gladiator comes to Mars.", "example"),
        ("edit", "In outer space, the dog meets a wizard in a capsule.", "example"),
        ("chat", f"{NEW} #END_X and more.", "marker_in_text"),
        ("one_block", f"{NEW} #BEGIN_PLOT", "wrong_markers"),
    ],
)
def test_every_fault_has_a_name(name, text, reason):
    with pytest.raises(MalformedText) as caught:
        read(name, text)
    assert caught.value.reason == reason
    with pytest.raises(MalformedText) as caught:
        read("one_block", NEW, stop_reason="length")  # what has a closing marker must reach it
    assert caught.value.reason == "length"


def test_words_of_an_example_are_the_texts_own_where_it_has_them():
    wizard = with_plot("A wizard lives in a tower. Two children look for him.")
    assert "wizard" in read("edit", "In outer space, the wizard finds another tower.", wizard)
    assert "wizard" in read("edit", "A wizard finds the dog in the hills.", action="Add a wizard.")


def test_fields_in_front_of_the_plot_are_kept_from_the_model():
    fields = "Genres: Drama, War. Year: 1995. Plot: "
    assert split_fields(fields + PLOT) == (fields, PLOT)
    for text in (fields + PLOT, f"Plot: {PLOT}", PLOT, f"Year: 1995. Plot: {PLOT} Plot: twice."):
        assert split_fields(text)[1] == parse_film_fields(text).plot
    assert split_fields(PLOT) == ("", PLOT)
    assert split_fields("The Genres: a film. Its Plot: none.")[0] == ""
    text = with_plot(fields + PLOT)
    for name, plot in (("chat", NEW), ("edit", f"{PLOT} {NEW.partition(' Two')[0]}")):
        assert "1995" not in rewrite_prompt(name, COMPACT, MOVIE, text, SPACE).text
        assert read(name, NEW, text) == with_plot(fields + plot)


def test_settings_name_a_format_that_there_is():
    with pytest.raises(ValueError, match="'verse' is none of blocks, one_block, chat, edit"):
        RewriteSettings(format="verse", max_tries=1)
    assert all(RewriteSettings(format=name, max_tries=1).format == name for name in REWRITE_FORMATS)


class Patient:
    """Answers each prompt with the next text of its action's; keeps (actions, seed) of every call."""

    def __init__(self, **answers):
        self.answers = {action: list(texts) for action, texts in answers.items()}
        self.calls, self.temperatures = [], []

    def generate(self, prompts, sampling, seed):
        actions = [prompt.text.partition("Change: ")[2].rpartition("Change: ")[2].split("\n")[0] for prompt in prompts]
        self.calls.append((actions, seed))
        self.temperatures.append(sampling.temperature)
        return [written(self.answers[action].pop(0)) for action in actions]


def test_an_environment_asks_again_and_counts_every_call_and_reason():
    good = "In the hills, the dog meets a wolf who leads him home."
    generator = Patient(a=[good], b=["No end", "Short.", good], c=["No end", PLOT, "No end"])
    environment = LLMEnvironment(
        generator=generator,
        book=COMPACT,
        entity_format=MOVIE,
        sampling=SAMPLING,
        rewriting=RewriteSettings(format="edit", max_tries=3, retry_temperature=1.25),
    )
    fault = MalformedText("length", "ACTION")
    a, b, none, c = environment.step([ALONE] * 4, ["a", "b", fault, "c"], seed=5)
    assert a.description == b.description == with_plot(f"{PLOT} {good}") and a.malformed is None
    assert (c.description, c.malformed) == (ALONE, "environment:no_sentence")
    assert [step.num_calls for step in (a, b, none, c)] == [1, 3, 0, 3]
    assert [actions for actions, _ in generator.calls] == [["a", "b", "c"], ["b", "c"], ["b", "c"]]
    assert generator.temperatures == [SAMPLING.temperature, 1.25, 1.25] and SAMPLING.temperature != 1.25
    seeds = [seed for _, seed in generator.calls]
    assert seeds[0] == 5 and len(set(seeds)) == 3
    assert environment.num_calls == 7
    assert environment.malformed_tries == Counter(no_sentence=3, too_short=1, copy=1)


def test_steps_of_before_are_read():
    from eagle_jax.eagle.environment import Step

    step = Step(**{"action": "a", "description": "b", "malformed": None})
    assert step.num_calls == 1 and Step(**dataclasses.asdict(step)) == step
