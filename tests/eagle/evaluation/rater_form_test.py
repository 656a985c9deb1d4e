"""The rater form: its questions, what is refused, and worked scores."""

import pytest

from eagle_jax.data.prompts import COMPACT, MalformedText, rater_prompt
from eagle_jax.eagle.evaluation.rater_form import (
    QUESTIONS,
    parse_rater_answers,
    place_blind,
    score_answers,
    with_generated_at_a,
)

TEXT_A = (
    "#BEGIN_PLOT a thief repents #END_PLOT #BEGIN_REASONS_TO_LIKE it is warm #END_REASONS_TO_LIKE"
    " #BEGIN_REASONS_TO_DISLIKE it is slow #END_REASONS_TO_DISLIKE"
)
TEXT_B = TEXT_A.replace("thief repents", "robot learns to paint")
ANSWERS = "#BEGIN_ANSWERS 1 A 2 A 3 4 4 2 5 4 6 3 7 2 8 B 9 2 10 2 11 A #END_ANSWERS"


def test_a_question_about_one_text_has_its_like_about_the_other():
    assert list(QUESTIONS) == list(range(1, 12))
    for number, question in QUESTIONS.items():
        if (other := question.same_of_other) is not None:
            like = QUESTIONS[other]
            assert like.same_of_other == number and like.ends == question.ends
            first, second = sorted((question.text, like.text))
            assert first != second == first.replace("ext A", "ext B")


def test_with_the_generated_text_at_b_answers_change_sides():
    answers = parse_rater_answers(ANSWERS)
    assert with_generated_at_a(answers, "A") == answers
    turned = {1: "B", 2: "B", 3: 2, 4: 4, 5: 4, 6: 2, 7: 3, 8: "A", 9: 2, 10: 2, 11: "B"}
    assert with_generated_at_a(answers, "B") == turned
    assert with_generated_at_a(turned, "B") == answers


def test_a_text_stands_at_a_or_at_b():
    with pytest.raises(ValueError, match="'C'"):
        place_blind("x", "y", "C")


def test_answers_are_read_back():
    answers = parse_rater_answers(ANSWERS)
    assert answers == {1: "A", 2: "A", 3: 4, 4: 2, 5: 4, 6: 3, 7: 2, 8: "B", 9: 2, 10: 2, 11: "A"}
    assert parse_rater_answers(ANSWERS.replace(" A", " a").replace(" B", " b")) == answers


def test_answers_to_the_models_prompt_are_read_back():
    prompt = rater_prompt(COMPACT, TEXT_A, TEXT_B, "likes art")
    completion = ANSWERS.removeprefix(prompt.opening)
    assert prompt.text.endswith(prompt.opening) and completion.endswith(prompt.stop[0])
    assert parse_rater_answers(prompt.opening + completion)[8] == "B"


@pytest.mark.parametrize(
    "text, reason",
    [
        (ANSWERS.removesuffix("#END_ANSWERS"), "missing_block"),
        (ANSWERS + " thanks", "text_outside_blocks"),
        ("#BEGIN_ANSWERS #END_ANSWERS", "empty_block"),
        (ANSWERS.replace(" 11 A", ""), "missing_answers"),
        (ANSWERS.replace("11 A", "11 A 12 A"), "missing_answers"),
        (ANSWERS.replace("10 2", "9 2"), "wrong_question"),
        (ANSWERS.replace("2 A 3 4", "3 4 2 A"), "wrong_question"),
        (ANSWERS.replace("1 A 2", "1 C 2"), "not_a_choice"),
        (ANSWERS.replace("8 B", "8 4"), "not_a_choice"),
        (ANSWERS.replace("5 4", "5 6"), "not_a_score"),
        (ANSWERS.replace("5 4", "5 4.5"), "not_a_score"),
        (ANSWERS.replace("5 4", "5 \u0664"), "not_a_score"),  # a digit, but not one of ours
    ],
)
def test_malformed_answers_are_typed(text, reason):
    with pytest.raises(MalformedText) as error:
        parse_rater_answers(text)
    assert error.value.reason == reason


def test_scores_of_the_generated_text():
    answers = parse_rater_answers(ANSWERS)  # user A, rater B, different 4, scores 4 > 2
    as_a, as_b = score_answers(answers, "A"), score_answers(answers, "B")
    assert (as_a.user_utility, as_a.rater_utility) == (1.0, 0.0)
    assert (as_b.user_utility, as_b.rater_utility) == (0.0, 1.0)
    assert as_a.distance_score == as_b.distance_score == 0.75  # (4 - 1) / 4


@pytest.mark.parametrize(
    "second, score_a, score_b, consistency",
    [("A", 4, 2, 1.0), ("A", 3, 3, 0.75), ("A", 1, 2, 0.5), ("B", 4, 2, 0.5), ("B", 1, 5, 0.0)],
)
def test_consistency_of_questions_one_to_four(second, score_a, score_b, consistency):
    answers = parse_rater_answers(ANSWERS) | {2: second, 3: score_a, 4: score_b}
    assert score_answers(answers, "A").consistency == consistency
    assert score_answers(answers, "B").consistency == consistency
