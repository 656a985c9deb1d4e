"""A dialogue with a scripted ELM: lines are read, points found, answers scored, faults told."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, TASKS
from eagle_jax.elm.dialogue import (
    DialogueQuestion,
    Explorer,
    Point,
    Ranker,
    Space,
    answer,
    converse,
    find_row,
    locate,
    parse_question,
    reply,
    tell_help,
)
from eagle_jax.embeddings.concept_activation import ConceptActivation
from eagle_jax.language_model.generation import Generation, SamplingSettings

# Four items in the plane, at the angles that their names say; one user, who likes the first.
_ITEMS = {"east": [1.0, 0.0], "north": [0.0, 2.0], "west": [-1.0, 0.0], "north-east": [1.0, 1.0]}
_GREEDY = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=8)


_NORTHWARD = ConceptActivation(
    direction=np.array([0.0, 1.0]), bias=0.0, spread=0.5, quality=0.9, penalty=1.0, num_positives=9, gradient_norm=0.0
)


def _embed(texts):
    """P: a text is as the item that it names."""
    return np.array([_ITEMS[text] for text in texts])


class _ScriptedElm:
    """Answers each prompt with the next text; keeps what it was asked. None: cut short."""

    def __init__(self, *texts):
        self.texts, self.asked, self.seeds = list(texts), [], []

    def generate(self, prompts, sampling, seed):
        assert sampling is _GREEDY
        self.asked += prompts
        self.seeds.append(seed)
        texts = [self.texts.pop(0) for _ in prompts]
        return [
            Generation(
                text=text or "east", token_ids=None, log_probs=None, stop_reason="length" if text is None else "stop"
            )
            for text in texts
        ]


def _space(titles, vectors, ids="f", activations=()):
    names = [f"{ids}{row}" for row in range(len(titles))]
    return Space(ids=names, titles=list(titles), vectors=np.array(vectors), activations=dict(activations))


def _explorer(*texts, items=None):
    items = items or _space(_ITEMS, list(_ITEMS.values()), activations={"Sunny": _NORTHWARD})
    users = _space(["u0", "u1"], [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], "u")
    return Explorer(
        elm=_ScriptedElm(*texts),
        book="compact",
        sampling=_GREEDY,
        how="linear",
        spaces={SEMANTIC: items, BEHAVIORAL: users},
        of_items=Ranker(_embed, items.vectors),
        of_profiles=Ranker(_embed, items.vectors),
        predicted_ratings=lambda user: np.array([5.0, 1.0, 0.0, 2.0]) * user[0],
    )


@pytest.mark.parametrize(
    ("line", "points"),
    [
        ("summary: east", (Point("east"),)),
        ("  Positive Review :  The 5:15 to York ", (Point("The 5:15 to York"),)),
        ("summary: a ~ b", (Point("a", toward="b", amount=0.5),)),
        ("summary: a ~ b @ 0.25", (Point("a", toward="b", amount=0.25),)),
        ("summary: a > very funny @ -2", (Point("a", along="very funny", amount=-2.0),)),
        ("summary: a > funny", (Point("a", along="funny", amount=1.0),)),
        ("why like nn: a ~ b ; c > d @ 3", (Point("a", toward="b", amount=0.5), Point("c", along="d", amount=3.0))),
        ("user_profile: u7", (Point("u7"),)),
    ],
)
def test_lines_are_questions(line, points):
    question = parse_question(line)
    assert question.points == points
    assert question.task.name == line.partition(":")[0].strip().lower().replace(" ", "_")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sumary: east", "no task 'sumary': did you mean summary"),
        ("qqqq", "no task 'qqqq': nothing here is called like it; 'help'"),
        ("summary", "summary is about item: expected 'summary: item'"),
        ("summary: a ; b", "summary is about item"),
        ("similarities: a", "similarities is about item ; item"),
        ("summary: a ~ b @ half", "expected a number after '@', got 'half'"),
        ("summary: a > b @ nan", "expected a number after '@', got 'nan'"),
    ],
)
def test_what_is_no_question_is_told(line, message):
    with pytest.raises(UserError, match=message):
        parse_question(line)


def test_points_are_found_between_and_beyond_items():
    explorer = _explorer()

    def at(*point, **fields):
        return locate(explorer, SEMANTIC, Point(*point, **fields)).tolist()

    assert at("EAST") == at("F0") == [1.0, 0.0]
    # 3/4 (1, 0) + 1/4 (0, 2); (1, 0) + 3 spreads of 0.5 along (0, 1), whatever the tag's case.
    assert at("east", toward="north", amount=0.25) == [0.75, 0.5]
    assert at("east", along="sunny", amount=3.0) == [1.0, 1.5]


@pytest.mark.parametrize(
    ("kind", "point", "message"),
    [
        (SEMANTIC, Point("esat"), "no item 'esat': did you mean .*east"),
        (SEMANTIC, Point("east", toward="nroth"), "no item 'nroth': did you mean north"),
        (SEMANTIC, Point("east", along="suny"), "no direction 'suny': did you mean Sunny"),
        (SEMANTIC, Point("east", toward="north", amount=1.5), r"alpha must lie in \[0, 1\]"),
        (SEMANTIC, Point("east", toward="west", amount=0.5), "cancel"),
        (BEHAVIORAL, Point("u9"), "no user 'u9': did you mean u[01]"),
        (BEHAVIORAL, Point("u0", along="sunny"), "no direction 'sunny': nothing here"),
    ],
)
def test_what_is_no_point_is_told(kind, point, message):
    with pytest.raises(UserError, match=message):
        locate(_explorer(), kind, point)


def test_an_id_goes_before_a_title():
    space = Space(ids=["1", "2"], titles=["2", "1"], vectors=np.eye(2), activations={})
    assert find_row(space, SEMANTIC, "1") == 0


def test_an_answer_has_its_consistency_and_its_neighbors():
    explorer = _explorer("north-east")
    question = DialogueQuestion(TASKS["summary"], (Point("east", toward="north", amount=0.5),))
    given = answer(explorer, question, seed=3)
    # The point is (0.5, 1), the text (1, 1): cosine 1.5 / sqrt(1.25 * 2).
    assert given.cosines == pytest.approx([1.5 / np.sqrt(2.5)])
    assert [title for title, _ in given.nearest] == ["north-east", "east", "north"]
    assert [cosine for _, cosine in given.nearest] == pytest.approx([1, np.sqrt(0.5), np.sqrt(0.5)])
    assert given.text == "north-east" and given.malformed is None and given.bc is None
    (asked,) = explorer.elm.asked
    assert asked.prompt.text.startswith("summarise the film <item>.")
    ((kind, vector),) = asked.embeddings
    assert kind == SEMANTIC and vector.tolist() == [0.5, 1.0] and explorer.elm.seeds == [3]


def test_two_items_have_a_cosine_each():
    assert reply(_explorer("north-east"), "similarities: east ; north", 0)[1] == ("cosine with each item: 0.707, 0.707")


def test_a_profile_is_judged_by_predicted_ratings():
    """Ratings 5, 1, 0, 2: gains 31, 1, 0, 3. The profile "east" ranks east (cosine 1), north-east
    (0.707), north (0), west (-1): the best order of all, and "west" the worst but for ties."""
    explorer = _explorer("east", "west")
    question = parse_question("user_profile: u0")
    best, worst = (answer(explorer, question, seed=0) for _ in range(2))
    assert best.bc == pytest.approx(1.0) and best.cosines == ()
    # West 1, north 2, north-east 3, east 4: gains 0, 1, 3, 31 over log2(1 + rank).
    ideal = 31 + 3 / np.log2(3) + 1 / 2
    expected = (1 / np.log2(3) + 3 / 2 + 31 / np.log2(5)) / ideal
    assert worst.bc == pytest.approx(expected)


def test_what_cannot_be_read_is_no_answer():
    explorer = _explorer(None, " ")
    assert reply(explorer, "summary: east", 0) == ["(no answer that can be read: length)"]
    (told,) = reply(explorer, "summary: east", 0)
    assert told.startswith("(no answer that can be read: ")


def test_help_names_what_can_be_asked_here():
    told = "\n".join(tell_help(_explorer()))
    assert "why_like_nn" in told and "user_profile" in told
    assert "amazon" not in told  # no compact wording
    assert "4 items, for instance f0: east" in told and "directions for items: Sunny" in told
    assert "directions for users: none" in told
    for line in told.splitlines()[:5]:  # its own examples can be parsed
        parse_question(line.split("   ")[0])


def test_names_are_found_by_their_words():
    assert reply(_explorer(), "find NORTH", 0) == ["f1  north", "f3  north-east"]
    assert reply(_explorer(), "find south", 0) == ["no title has all of: south"]
    told = reply(_explorer(items=_space(["north"] * 12, np.ones((12, 2)))), "find north", 0)
    assert len(told) == 11 and told[-1] == "... 12 in all"


def test_a_dialogue_goes_on_after_a_fault_ends_with_quit_and_does_not_steer_the_terminal(monkeypatch):
    monkeypatch.setitem(_ITEMS, "\x1b[2Jeast", [1.0, 0.0])
    explorer, told = _explorer("\x1b[2Jeast", "north"), []
    lines = ["", "sumary: east", "summary: east", "summary: north", "quit", "summary: east"]
    converse(explorer, lines, told.append, seed=10)
    assert "did you mean summary" in told[1] and told[2] == r"\x1b[2Jeast"
    assert told.count("semantic consistency: 1.000") == 2
    assert explorer.elm.texts == [] and explorer.elm.seeds == [12, 13]
