"""A language model as a rater: both orders, its taste for a place, agreement with itself and people."""

import re

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.evaluation.rater_form import QUESTIONS
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.pages.model_rater import ask_model
from eagle_jax.pages.rate import rating_command
from eagle_jax.pages.rating_results import results
from tests.pages.made_up_run import open_store, rate_all, write_run


def block(choice, score=3):
    words = (f"{number} {score if question.ends else choice}" for number, question in QUESTIONS.items())
    return f"{' '.join(words)} #END_ANSWERS"


def place_of_new(prompt):
    first, second = re.findall(r"(anchor|new text) \d", prompt.text)
    assert {first, second} == {"anchor", "new text"}
    return "A" if first == "new text" else "B"


class Rater(ScriptedGenerator):
    """Answers as `fn` says, and knows how many forms it was asked."""

    def __init__(self, fn):
        super().__init__(lambda prompt, rng: fn(prompt))
        self.asked = 0

    def generate(self, prompts, sampling, seed):
        self.asked += len(prompts)
        return super().generate(prompts, sampling, seed)


def asked(tmp_path, fn, people=0):
    run, store = open_store(write_run(tmp_path, num_pairs=20), raters=2)
    rate_all(store, lambda item: item < 15, [0.0] * people)
    malformed = ask_model(run, store, Rater(fn), 0)
    groups = results(run, store.forms())["groups"]
    return groups[0], groups[1] if len(groups) > 1 else None, malformed


def test_who_sees_the_text_agrees_with_itself_and_with_people_where_they_do(tmp_path):
    people, model, malformed = asked(tmp_path, lambda prompt: block(place_of_new(prompt)), people=2)
    assert not malformed and people["rows"][0]["num_forms"] == 40
    (line,) = model["rows"]
    assert (line["num_forms"], line["num_items"], line["num_raters"]) == (40, 20, 1)
    assert line["cells"]["user_utility"].mean == 1.0 and line["cells"]["user_utility"].by_rater is None
    assert people["rows"][0]["cells"]["user_utility"].mean == 0.75
    assert model["first"].mean == 0.5
    first = model["agreement"][0]
    assert first.with_people.mean == 0.75  # it likes all new texts, people 15 of 20
    assert people["agreement"][0].with_people is None and people["agreement"][0].alpha == 1.0


def test_who_likes_a_place_is_told_from_who_likes_a_text(tmp_path):
    _, model, _ = asked(tmp_path, lambda prompt: block("A"))
    assert model["first"].mean == 1.0
    assert model["rows"][0]["cells"]["user_utility"].mean == 0.5
    assert model["agreement"][0].alpha < 0  # the two orders never agree
    assert model["agreement"][0].num_items == 20 and model["agreement"][0].with_people is None


def test_malformed_answers_are_counted_and_asked_for_again(tmp_path):
    _, model, malformed = asked(
        tmp_path, lambda prompt: block(place_of_new(prompt)) if "anchor 1" in prompt.text else "x"
    )
    assert malformed == {"missing_answers": 2 * 9} and model["rows"][0]["num_forms"] == 2 * 11
    run, store = open_store(tmp_path, raters=2)
    rater = Rater(lambda prompt: block("B"))
    assert not ask_model(run, store, rater, 0) and rater.asked == 2 * 9


def test_after_a_kill_only_what_is_missing_is_asked(tmp_path):
    run, store = open_store(write_run(tmp_path, num_pairs=20))

    class Dying(Rater):
        def generate(self, prompts, sampling, seed):
            if self.asked:
                raise KeyboardInterrupt
            return super().generate(prompts, sampling, seed)

    with pytest.raises(KeyboardInterrupt):
        ask_model(run, store, Dying(lambda prompt: block("A")), 0)
    assert len(store.forms()) == 32
    rater = Rater(lambda prompt: block("A"))
    ask_model(run, store, rater, 0)
    assert rater.asked == 8 and len(store.forms()) == 40


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--endpoint=http://127.0.0.1:1/v1"], "--endpoint needs --model"),
        (["--endpoint=nowhere", "--model=m"], "--endpoint=nowhere: base_url must be like https://host/v1"),
        (["--model=nowhere"], "nowhere"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(flags, said, tmp_path):
    with pytest.raises(UserError, match=said):
        rating_command([f"--workdir={write_run(tmp_path)}", *flags])
