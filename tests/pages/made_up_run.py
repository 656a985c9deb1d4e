"""A finished run of EAGLE without its training, and raters who err at known rates."""

import numpy as np

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import render_blocks
from eagle_jax.eagle.evaluation.rater_form import QUESTIONS
from eagle_jax.pages.rated_run import read_rated_run
from eagle_jax.pages.rating_store import RatingStore

EAGLE_ROW = "EAGLE, g_optimal"


def told(text):
    return render_blocks({"PLOT": text, "REASONS_TO_LIKE": "it is warm", "REASONS_TO_DISLIKE": "it is slow"})


def record(row, pair, new_text=None):
    steps = [] if new_text is None else [{"action": "x", "description": told(new_text), "malformed": None}]
    anchor, profile = told(f"anchor {pair}"), f"user {pair} loves deserts"
    kept = {"row": row, "seed": 0, "entity_index": pair, "user_index": 100 + pair}
    return kept | {"anchor": anchor, "profile": profile, "steps": steps}


def write_run(workdir, num_pairs=4, rows=(EAGLE_ROW,), new_text="new text {} of {}", noun_records=()):
    """As experiments.eagle leaves it: the anchors' row, and a new text for each pair in the others."""
    records = [record("anchor", pair) for pair in range(num_pairs)]
    records += [record(row, pair, new_text.format(pair, row)) for row in rows for pair in range(num_pairs)]
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
    table = [{"row": row, "cells": {"train/utility": cell}} for row in ("anchor", *rows)]
    stage = StageFolder(workdir / "evaluation", {"prompts": "compact"})
    stage.write_jsonl("records.jsonl", [*records, *noun_records])
    stage.write_json("table.json", table)
    stage.finish()
    return workdir


def open_store(workdir, raters=3, seed=0):
    run = read_rated_run(workdir)
    return run, RatingStore(workdir / "ratings.sqlite", {"--seed": seed}, run.checks, raters, seed)


def answers_of(form, likes_new, rng, error):
    """Every question answered as the truth is, but with probability `error` another way."""

    def option(number, right):
        options = QUESTIONS[number].options
        if rng.random() < error:
            right = rng.choice([word for word in options if word != right])
        return int(right) if right.isdigit() else str(right)

    new, anchor = (form.label, "AB".replace(form.label, ""))
    liked = new if likes_new else anchor
    right = {3: "5" if liked == "A" else "2", 4: "5" if liked == "B" else "2", 5: "4"}
    right |= {6: right[3], 7: right[4], 9: "3", 10: "3"}
    answers = {number: option(number, right.get(number, liked)) for number in QUESTIONS}
    return answers | (form.expected or {})


def rate_all(store, likes_new, errors, seed=0):
    """Raters with these error rates answer, turn and turn about, until nothing is left."""
    rng = np.random.default_rng(seed)
    todo = [(store.new_rater(), error) for error in errors]
    while todo:
        going = []
        for code, error in todo:
            if (form := store.current_form(code)) is not None:
                store.answer(code, form.place, answers_of(form, likes_new(form.item), rng, error))
                going.append((code, error))
        todo = going
