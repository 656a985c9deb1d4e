"""Laws of the environment: what it sees, what malformed output changes, what is counted."""

import pytest

from eagle_jax.data.prompts import COMPACT, MOVIE, MalformedText, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment, Start, Step, read_actions
from eagle_jax.language_model.generation import Generation, SamplingSettings

SAMPLING = SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=20)
TEXT = render_blocks({"PLOT": "a dog runs.", "REASONS_TO_LIKE": "the dog.", "REASONS_TO_DISLIKE": "the run."})
REWRITTEN = (
    "a cat runs. #END_PLOT #BEGIN_REASONS_TO_LIKE the cat. #END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE the run."
)


def written(text, stop_reason="stop"):
    return Generation(text=text, token_ids=None, log_probs=None, stop_reason=stop_reason)


class Recorder:
    """Answers with the given generations in turn and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def generate(self, prompts, sampling, seed):
        self.asked.append(([prompt.text for prompt in prompts], sampling, seed))
        return [self.answers.pop(0) for _ in prompts]


def make_environment(*answers):
    generator = Recorder(*answers)
    return generator, LLMEnvironment(generator=generator, book=COMPACT, entity_format=MOVIE, sampling=SAMPLING)


def reset(environment, count):
    return environment.reset([Start(i, 10 + i, TEXT, f"secret{i}") for i in range(count)])


def test_reset_keeps_the_starts():
    _, environment = make_environment()
    state = reset(environment, 2)[1]
    assert (state.entity_index, state.user_index, state.step) == (1, 11, 0)
    assert (state.description, state.profile) == (TEXT, "secret1")
    step = Step(action="a", description="another text", malformed=None)
    after = state.after(step)
    assert (after.description, after.profile, after.step) == ("another text", "secret1", 1)


def test_step_rewrites_in_one_call_and_sees_no_profile():
    generator, environment = make_environment(written(REWRITTEN), written(f"  {REWRITTEN} "))
    steps = environment.step([TEXT] * 2, ["make it a cat.", "a cat!"], seed=3)
    ((texts, sampling, seed),) = generator.asked  # one batch
    assert sampling == SAMPLING and seed == 3
    for text, action in zip(texts, ["make it a cat.", "a cat!"], strict=True):
        assert TEXT in text and action in text
        assert "USER_PROFILE" not in text
    # Canonical, whatever the white space of the model.
    assert {step.description for step in steps} == {TEXT.replace("dog", "cat")}
    assert [step.action for step in steps] == ["make it a cat.", "a cat!"]
    assert all(step.malformed is None for step in steps)
    assert environment.num_calls == 2


@pytest.mark.parametrize(
    "output, reason",
    [
        (written(REWRITTEN, "length"), "environment:length"),
        (written("a cat runs."), "environment:missing_block"),
        (written(f"{REWRITTEN} #BEGIN_PLOT"), "environment:wrong_markers"),
        (written(REWRITTEN.replace("the cat.", "")), "environment:empty_block"),
        (
            written(REWRITTEN.replace("#BEGIN_REASONS_TO_LIKE", "and #BEGIN_REASONS_TO_LIKE")),
            "environment:text_outside_blocks",
        ),
    ],
)
def test_malformed_output_leaves_the_text_and_is_noted(output, reason):
    _, environment = make_environment(output, written(REWRITTEN))
    bad, good = environment.step([TEXT] * 2, ["a", "b"], seed=0)
    assert bad == Step(action="a", description=TEXT, malformed=reason)
    assert good.malformed is None and "cat" in good.description
    assert environment.num_calls == 2  # a call is a call, whatever came of it


def test_every_step_tells_its_own_fault():
    _, environment = make_environment(written("x"), written(REWRITTEN), written("", "length"))
    (state,), faults = reset(environment, 1), []
    for seed in range(3):
        (step,) = environment.step([state.description], ["act"], seed)
        state, faults = state.after(step), [*faults, step.malformed]
    assert faults == ["environment:missing_block", None, "environment:length"]
    assert state.step == 3 and "cat" in state.description


def test_no_action_costs_no_call():
    generator, environment = make_environment(written(REWRITTEN))
    none = MalformedText("empty_block", "ACTION")
    steps = environment.step([TEXT] * 3, [none, "a cat", none], seed=0)
    assert environment.num_calls == 1 and len(generator.asked[0][0]) == 1
    assert [step.description == TEXT for step in steps] == [True, False, True]
    faults = ["action:empty_block", None, "action:empty_block"]
    assert [step.malformed for step in steps] == faults
    environment.step([TEXT] * 3, [none] * 3, seed=1)
    assert environment.num_calls == 1 and len(generator.asked) == 1  # not even an empty batch


def test_texts_and_actions_must_match():
    _, environment = make_environment()
    with pytest.raises(ValueError):
        environment.step([TEXT] * 2, ["a"], seed=0)


@pytest.mark.parametrize(
    "generation, action, reason",
    [
        (written(" make it  a cat. "), "make it a cat.", None),
        (written("make it a", "length"), None, "length"),
        (written("  "), None, "empty_block"),
        (written("make #BEGIN_PLOT it"), None, "wrong_markers"),
    ],
)
def test_actions_are_read_in_one_place(generation, action, reason):
    (read,) = read_actions([generation])
    assert read == action if reason is None else read.reason == reason
