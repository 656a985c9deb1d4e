"""A teacher's targets: kept on disk, asked for once, malformed ones again, all of them counted."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.task_teacher import answer_task, share_recovered
from eagle_jax.data.minilens.world import as_film, draw_films
from eagle_jax.data.preferences.dialogues import dialogue_turns
from eagle_jax.data.prompts import MOVIE, render_blocks
from eagle_jax.data.tasks import TASKS, teacher_prompt
from eagle_jax.elm.examples import Teacher, rows_about, subject_names
from eagle_jax.elm.settings import TeacherSettings
from eagle_jax.language_model.generation import Generation, SamplingSettings, ScriptedGenerator

TITLES = [grammar.title_of(as_film(film)) for film in draw_films(30, np.random.default_rng(0))]
ROWS = [
    *({"task": "summary", "items": [i], "user": None} for i in range(9)),
    *({"task": "similarities", "items": [i, i + 1], "user": None} for i in range(6)),
    {"task": "user_profile", "items": list(range(10)), "user": 3},
]
CATALOGUE = Catalogue(
    name="ants",
    entities=tuple(Entity(entity_id=f"f{i}", title=title, description="") for i, title in enumerate(TITLES)),
    ratings=RatingTable(
        user_names=("u0", "u1", "u2", "ann"),
        item_names=tuple(f"f{i}" for i in range(len(TITLES))),
        user_index=np.zeros(0, np.int32),
        item_index=np.zeros(0, np.int32),
        rating=np.zeros(0, np.float32),
    ),
    tags=(),
    entity_format=MOVIE,
)
SETTINGS = TeacherSettings(
    shows="title",
    sampling=SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=80),
    batch_size=4,
    max_tries=3,
)


class Watched:
    """A teacher whose answers may be damaged; `asked` has the prompts of each call."""

    name = "watched"

    def __init__(self, damage=lambda text, call: (text, "stop")):
        self.inner, self.damage = ScriptedGenerator(answer_task), damage
        self.asked, self.seeds = [], []

    def generate(self, prompts, sampling, seed):
        self.asked.append([prompt.text for prompt in prompts])
        self.seeds.append(seed)
        made = []
        for generation in self.inner.generate(prompts, sampling, seed):
            text, reason = self.damage(generation.text, len(self.asked))
            made.append(Generation(text=text, token_ids=None, log_probs=None, stop_reason=reason))
        return made


@pytest.fixture
def write(tmp_path):
    def written(generator, rows=ROWS, seed=5, cache="c.sqlite"):
        teacher = Teacher(
            generator=generator, book="compact", catalogue=CATALOGUE, settings=SETTINGS, seed=0, cache=tmp_path / cache
        )
        return teacher.write_targets(rows, seed)

    return written


def test_targets_are_the_teacher_s_answers_to_the_rows(write):
    teacher = Watched()
    targets = write(teacher)
    assert [len(call) for call in teacher.asked] == [4, 4, 4, 4]
    assert not targets.malformed and not targets.left_out
    for row, given in zip(targets.rows, ROWS, strict=True):
        assert row == {**given, "target": row["target"]}
        task = TASKS[row["task"]]
        prompt = teacher_prompt("compact", task, [TITLES[item] for item in row["items"]])
        assert share_recovered(prompt, row["target"]) == 1.0


def test_nothing_is_asked_for_twice_and_an_interrupted_run_goes_on_where_it_was(write):
    def stopped(text, call):
        if call == 3:
            raise KeyboardInterrupt
        return text, "stop"

    with pytest.raises(KeyboardInterrupt):
        write(Watched(stopped))
    after, again = Watched(), Watched()
    resumed = write(after)
    assert [len(call) for call in after.asked] == [4, 4]  # the third batch and the fourth
    assert resumed == write(again) == write(Watched(), cache="another.sqlite") and again.asked == []
    assert write(again, seed=6).rows != resumed.rows and len(again.asked) == 4


def test_malformed_answers_are_asked_again_and_counted_by_reason(write):
    damaged = {1: ("cut sh", "length"), 2: ("", "stop"), 3: ("a #BEGIN_PLOT b", "stop")}
    teacher = Watched(lambda text, call: damaged.get(call, (text, "stop")))
    targets = write(teacher)
    # Three batches of four fail in three ways and are asked again, as three batches.
    assert targets.malformed == Counter(length=4, empty_block=4, wrong_markers=4)
    assert [len(call) for call in teacher.asked] == [4] * 4 + [4] * 3
    assert sum(teacher.asked[4:], []) == sum(teacher.asked[:3], [])
    assert len(set(teacher.seeds)) == 7  # a retry has another one
    assert not targets.left_out and len(targets.rows) == len(ROWS)
    assert [row["items"] for row in targets.rows] == [row["items"] for row in ROWS]


def test_what_stays_malformed_is_left_out_and_counted(write):
    teacher = Watched(lambda text, call: (text, "length" if "film a" in text else "stop"))
    targets = write(teacher)
    assert targets.malformed == Counter(length=6 * SETTINGS.max_tries)
    assert targets.left_out == Counter(similarities=6)
    assert [row["task"] for row in targets.rows] == ["summary"] * 9 + ["user_profile"]
    again = Watched()  # the damage was kept too: nothing is asked for, the counts are the same
    assert write(again) == targets and not again.asked


def test_a_chat_tells_texts_alone_and_those_of_like_length_together(tmp_path):
    plots = [f"Film {i} tells of {'a very ' * (7 * i % 9)}old lighthouse." for i in range(9)]
    shown = tuple(
        dataclasses.replace(entity, description=render_blocks(dict(zip(MOVIE.blocks, (plot, "", ""), strict=True))))
        for entity, plot in zip(CATALOGUE.entities, plots, strict=False)
    )
    asked = []

    def answer(prompt, rng):
        turn = dialogue_turns(prompt.text)[-1]["content"]
        asked.append(turn.removeprefix("Film: ").partition("\n")[0])
        wrong = "lighthouse " * 8 + "." if asked[-1] == plots[4] and asked.count(plots[4]) < 2 else ""
        return wrong or f"There is a light in number {plots.index(asked[-1])} for you. And"

    teacher = Teacher(
        generator=ScriptedGenerator(answer),
        book="chat",
        catalogue=dataclasses.replace(CATALOGUE, entities=shown),
        settings=dataclasses.replace(SETTINGS, shows="text"),
        seed=0,
        cache=tmp_path / "c.sqlite",
    )
    targets = teacher.write_targets(rows_about("pitch", range(9)), 5)
    assert asked[:9] == sorted(plots, key=len) and asked[9:] == [plots[4]]
    assert [row["target"] for row in targets.rows] == [f"There is a light in number {i} for you." for i in range(9)]
    assert targets.malformed == Counter(loop=1) and not targets.left_out


def test_faults_are_named(write):
    with pytest.raises(UserError, match="no task 'sumary': expected one of summary, positive"):
        write(Watched(), rows=[{"task": "sumary", "items": [0], "user": None}])
    with pytest.raises(UserError, match=r"watched wrote no target for 16 examples in 3 tries: \{'length': 48\}"):
        write(Watched(lambda text, call: (text, "length")))


def test_the_names_of_a_row_are_those_of_its_items_and_user():
    assert subject_names(ROWS[10], CATALOGUE) == {"item_ids": ["f1", "f2"], "titles": TITLES[1:3], "user_id": None}
    named = subject_names(ROWS[-1], CATALOGUE)
    assert (named["user_id"], named["item_ids"][9], named["titles"]) == ("ann", "f9", TITLES[:10])
