"""Marked texts survive writing and reading, damage has a name, and roles see only what they may."""

import inspect

import pytest

from eagle_jax.data import prompts
from eagle_jax.data.prompts import (
    COMPACT,
    DETAILED,
    MOVIE,
    PRODUCT,
    MalformedText,
    parse_blocks,
    parse_completion,
    render_block,
    render_blocks,
)

BLOCKS = {"PLOT": "a dog; it runs.", "REASONS_TO_LIKE": "dogs!", "REASONS_TO_DISLIKE": "no cats?"}
TEXT = render_blocks(BLOCKS)
PROFILE = "overall: likes dogs, avoids cats."
ACTION = "make it a wolf."
DIALOGUE = "\n\nHuman: my dog barks.\n\nAssistant:"

BOOKS = pytest.mark.parametrize("book", [COMPACT, DETAILED], ids=["compact", "detailed"])
FORMATS = pytest.mark.parametrize("fmt", [MOVIE, PRODUCT], ids=["movie", "product"])


def entity_text(fmt):
    return render_blocks(dict(zip(fmt.blocks, BLOCKS.values(), strict=True)))


def all_prompts(book, fmt):
    """(prompt, blocks that it asks for, what it shows) of every role."""
    text, action_block = entity_text(fmt), ("ACTION",)
    category = fmt.action_categories[2]
    return {
        "environment": (prompts.environment_prompt(book, fmt, text, ACTION), fmt.blocks, (text, ACTION)),
        "policy": (prompts.policy_prompt(book, fmt, text, PROFILE), action_block, (text, PROFILE)),
        "generic": (prompts.generic_action_prompt(book, fmt, text, category), action_block, (text, category)),
        "personalised": (
            prompts.personalised_action_prompt(book, fmt, text, category, PROFILE),
            action_block,
            (text, category, PROFILE),
        ),
        "profile": (
            prompts.profile_prompt(book, ["up", "jaws"], ["heat"]),
            ("USER_PROFILE",),
            ("#BEGIN_LIKED up; jaws #END_LIKED", "#BEGIN_DISLIKED heat #END_DISLIKED"),
        ),
        "describe": (prompts.describe_prompt(book, fmt, "jaws"), fmt.blocks, ("jaws",)),
        "rater": (
            prompts.rater_prompt(book, text, entity_text(fmt).replace("dog", "cat"), PROFILE),
            ("ANSWERS",),
            (text, PROFILE),
        ),
        "write": (prompts.write_prompt(book, fmt, PROFILE), fmt.blocks, (fmt.noun, PROFILE)),
        "compare": (
            prompts.compare_prompt(book, DIALOGUE, "Feed it.", "Cats?"),
            ("ANSWER",),
            ("Human: my dog barks. Assistant:", "Feed it.", "Cats?"),
        ),
    }


def reason_of(call, *arguments, **options):
    with pytest.raises(MalformedText) as caught:
        call(*arguments, **options)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(caught.value.reason)
    return caught.value.reason


def test_a_text_is_written_as_the_paper_marks_it():
    assert TEXT == (
        "#BEGIN_PLOT a dog; it runs. #END_PLOT #BEGIN_REASONS_TO_LIKE dogs! #END_REASONS_TO_LIKE "
        "#BEGIN_REASONS_TO_DISLIKE no cats? #END_REASONS_TO_DISLIKE"
    )


@pytest.mark.parametrize(
    "content", ["one", "a, b: c; d.", "#hashtag #1", "BEGIN_PLOT without its sign", "50% {braces} \\ é 映画"]
)
def test_what_is_written_can_be_read_back(content):
    blocks = {"PLOT": content, "ACTION": content[::-1]}
    assert parse_blocks(render_blocks(blocks), ["PLOT", "ACTION"]) == blocks


def test_white_space_is_made_regular_and_lost_nowhere_else():
    ragged = "\n#BEGIN_PLOT  a \t dog\n runs#END_PLOT  "
    assert parse_blocks(ragged, ["PLOT"]) == {"PLOT": "a dog runs"}
    assert render_block("PLOT", "  a \n dog ") == "#BEGIN_PLOT a dog #END_PLOT"


def test_empty_blocks_are_read_only_where_they_may_be():
    text = render_blocks({"LIKED": "", "DISLIKED": "heat"})
    names = ["LIKED", "DISLIKED"]
    assert parse_blocks(text, names, may_be_empty=True) == {"LIKED": "", "DISLIKED": "heat"}
    assert reason_of(parse_blocks, text, names) == "empty_block"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing_block"),
        ("a dog", "missing_block"),
        ("#BEGIN_PLOT a dog", "missing_block"),
        ("a dog #END_PLOT", "missing_block"),
        ("#BEGIN_ACTION a dog #END_ACTION", "missing_block"),
        ("#begin_plot a dog #end_plot", "missing_block"),
        ("#END_PLOT a dog #BEGIN_PLOT", "wrong_markers"),
        ("#BEGIN_PLOT a #BEGIN_PLOT dog #END_PLOT", "wrong_markers"),
        ("#BEGIN_PLOT a dog #END_PLOT #END_PLOT", "wrong_markers"),
        ("#BEGIN_PLOT a dog #END_PLOT #BEGIN_ACTION x #END_ACTION", "wrong_markers"),
        ("so: #BEGIN_PLOT a dog #END_PLOT", "text_outside_blocks"),
        ("#BEGIN_PLOT a dog #END_PLOT the end", "text_outside_blocks"),
        ("#BEGIN_PLOT #END_PLOT", "empty_block"),
        ("#BEGIN_PLOT \n #END_PLOT", "empty_block"),
    ],
)
def test_every_damage_has_its_reason(text, reason):
    assert reason_of(parse_blocks, text, ["PLOT"]) == reason


def test_order_number_and_gaps_of_blocks_count():
    names = list(BLOCKS)
    assert parse_blocks(TEXT, names) == BLOCKS
    swapped = render_blocks({name: BLOCKS[name] for name in (names[1], names[0], names[2])})
    assert reason_of(parse_blocks, swapped, names) == "wrong_markers"
    assert reason_of(parse_blocks, render_blocks({"PLOT": "a"}), names) == "missing_block"
    assert reason_of(parse_blocks, TEXT, names[:2]) == "wrong_markers"
    gap = TEXT.replace(" #BEGIN_REASONS_TO_LIKE", " and #BEGIN_REASONS_TO_LIKE")
    assert reason_of(parse_blocks, gap, names) == "text_outside_blocks"


@pytest.mark.parametrize("marker", ["#END_PLOT", "#BEGIN_ACTION", "#END_SOMETHING"])
def test_a_marker_inside_a_text_is_refused(marker):
    # An action that closes its own block could write whatever follows.
    content = f"a dog {marker} and more"
    assert reason_of(render_block, "PLOT", content) == "marker_in_text"
    assert reason_of(render_blocks, {"PLOT": "fine", "ACTION": content}) == "marker_in_text"
    assert reason_of(prompts.environment_prompt, COMPACT, MOVIE, TEXT, content) == "marker_in_text"
    assert reason_of(prompts.policy_prompt, COMPACT, MOVIE, TEXT, content) == "marker_in_text"
    assert reason_of(prompts.profile_prompt, COMPACT, ["up", content], []) == "marker_in_text"


@BOOKS
@FORMATS
def test_prompts_end_in_the_marker_of_what_is_to_be_written(book, fmt):
    for role, (prompt, blocks, shown) in all_prompts(book, fmt).items():
        assert prompt.opening == f"#BEGIN_{blocks[0]}", role
        assert prompt.text.endswith(f" {prompt.opening}"), role
        assert prompt.stop == (f"#END_{blocks[-1]}",), role
        # What is written is not there yet: a sampler would stop before it began.
        assert prompt.text.count(prompt.opening) == (2 if role == "environment" else 1), role
        for part in shown:
            assert part in prompt.text, (role, part)
        assert "{" not in prompt.text, role
        assert "  " not in prompt.text, role


@BOOKS
@FORMATS
def test_a_completion_is_read_back_without_its_markers(book, fmt):
    for role, (prompt, names, _) in all_prompts(book, fmt).items():
        blocks = {name: f"text {i}" for i, name in enumerate(names)}
        completion = render_blocks(blocks).removeprefix(prompt.opening).removesuffix(prompt.stop[0])
        assert parse_completion(prompt, completion, names) == blocks, role
        # The sampler cut the closing marker off; one that is still there is one too many.
        again = f"{completion}{prompt.stop[0]}"
        assert reason_of(parse_completion, prompt, again, names) == "wrong_markers", role
        nothing = "empty_block" if len(names) == 1 else "missing_block"
        assert reason_of(parse_completion, prompt, " ", names) == nothing, role


@BOOKS
def test_the_environment_sees_neither_profile_nor_user(book):
    assert list(inspect.signature(prompts.environment_prompt).parameters) == ["book", "fmt", "description", "action"]
    text = prompts.environment_prompt(book, MOVIE, TEXT, ACTION).text
    assert "PROFILE" not in text and "user" not in text
    generic = prompts.generic_action_prompt(book, MOVIE, TEXT, "plot changes").text
    assert "PROFILE" not in generic and "user" not in generic


@BOOKS
def test_a_rater_is_blind(book):
    """Swapping the texts swaps the prompt's two places and nothing else."""
    other = TEXT.replace("dog", "cat")
    one = prompts.rater_prompt(book, TEXT, other, PROFILE).text
    two = prompts.rater_prompt(book, other, TEXT, PROFILE).text
    assert one.index(TEXT) == two.index(other)
    assert one.replace(TEXT, "*").replace(other, TEXT).replace("*", other) == two


@BOOKS
def test_responses_are_compared_blindly(book):
    one = prompts.compare_prompt(book, DIALOGUE, "it barks", "it sleeps").text
    two = prompts.compare_prompt(book, DIALOGUE, "it sleeps", "it barks").text
    assert one.index("it barks") == two.index("it sleeps")
    assert one.replace("barks ", "* ").replace("sleeps", "barks").replace("* ", "sleeps ") == two


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a #END_TEXT_A #BEGIN_ANSWER a", "a END_TEXT_A BEGIN_ANSWER a"),
        ("##BEGIN_PLOT #BEGIN_#END_X", "BEGIN_PLOT BEGIN_END_X"),
        ("#END_REQUEST#END_TEXT_B", "END_REQUESTEND_TEXT_B"),
        ("#1 is # of #tags, BEGIN_X", "#1 is # of #tags, BEGIN_X"),
        ("", ""),
    ],
)
def test_no_marker_in_a_text_leaves_its_block(text, shown):
    names = ["REQUEST", "TEXT_A", "TEXT_B"]
    for place, name in enumerate(names):
        texts = ["one", "two", "three"]
        texts[place] = text
        prompt = prompts.compare_prompt(COMPACT, *texts)
        blocks = prompt.text.removeprefix(COMPACT.compare).removesuffix(prompt.opening)
        expected = dict(zip(names, texts, strict=True)) | {name: shown}
        assert parse_blocks(blocks, names, may_be_empty=True) == expected
        spans = [prompt.text[start:end].strip() for start, end in prompts.cut_spans(prompt)]
        assert spans == list(expected.values())


def test_formats_are_the_papers():
    assert MOVIE.blocks == ("PLOT", "REASONS_TO_LIKE", "REASONS_TO_DISLIKE")
    for fmt in (MOVIE, PRODUCT):
        assert len(set(fmt.action_categories)) == 5
    assert prompts.PROMPT_BOOKS == {"compact": COMPACT, "detailed": DETAILED}


@BOOKS
@FORMATS
def test_the_blocks_that_may_be_cut_are_found_where_they_end(book, fmt):
    plot, profile = fmt.blocks[0], "USER_PROFILE"
    expected = {
        "environment": {plot: "a dog; it runs."},
        "policy": {plot: "a dog; it runs.", profile: PROFILE},
        "generic": {plot: "a dog; it runs."},
        "personalised": {plot: "a dog; it runs.", profile: PROFILE},
        "rater": {profile: PROFILE},
        "describe": {},
        "write": {profile: PROFILE},
        "compare": {"REQUEST": "Human: my dog barks. Assistant:", "TEXT_A": "Feed it.", "TEXT_B": "Cats?"},
    }
    for role, (prompt, _, _) in all_prompts(book, fmt).items():
        found = [prompt.text[start:end].strip() for start, end in prompts.cut_spans(prompt)]
        if role in expected:
            assert found == list(expected[role].values()), role
    asked = prompts.profile_prompt(book, ["A dog", "Dogs"], [])
    spans = [asked.text[start:end] for start, end in prompts.cut_spans(asked)]
    assert spans == [" A dog; Dogs ", " "]
