"""A finished run of ELM without its training: two answers for each task, of which some could not be read."""

import json

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.tasks import TASKS
from eagle_jax.elm.settings import SINGLE_MOVIE, TWO_MOVIES, ElmExperiment

UNREAD = ("pitch", 1)  # task and place of the example whose answer could not be read
MOVIE_TASKS = [name for name, task in TASKS.items() if task.group == "movie"]
assert set(MOVIE_TASKS) <= {*SINGLE_MOVIE, *TWO_MOVIES}


def tiny_config():
    config = load_config("experiments/configs/rlaif_minilens.py:quick").to_dict()["start"]
    config = json.loads(json.dumps(config))
    config["catalogue"]["minilens"] |= {"num_films": 160, "num_users": 80, "ratings_per_user": 60}
    return config


def tiny_experiment():
    return to_settings(ElmExperiment, tiny_config())


def write_elm_run(workdir, per_task=2):
    """As experiments.elm leaves what is rated."""
    rows, texts = [], []
    for task in (*MOVIE_TASKS, "user_profile"):
        for place in range(per_task):
            user = 3 if task == "user_profile" else None
            items = [10 + place, 30][: len(TASKS[task].slots)]
            rows.append({"task": task, "items": items, "user": user, "target": "the teacher's words"})
            texts.append(None if (task, place) == UNREAD else f"{task} {place}: <b>words</b> of the model")
    stages = {name: StageFolder(workdir / name, {}) for name in ("examples", "answers", "results")}
    for stage in stages.values():
        stage.begin()
    stages["examples"].write_jsonl("test.jsonl", rows)
    stages["answers"].chunk(0, lambda: {"texts": texts, "reasons": [None] * len(texts)})
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
    table = [
        {"group": task, "system": system, "cells": {"sc": cell | {"mean": mean}, "bc/spearman": cell}}
        for task in ("summary", "similarities")
        for system, mean in (("elm", 0.5), ("teacher", 0.9))
    ]
    del table[2]["cells"]["bc/spearman"]  # two films have none
    stages["results"].write_json("consistency.json", {"rows": table})
    for stage in stages.values():
        stage.finish()
    (workdir / "experiment.json").write_text('{"experiment": "elm"}')
    (workdir / "results.json").write_text(json.dumps({"report": "elm/report", "settings": tiny_config()}))
    return workdir
