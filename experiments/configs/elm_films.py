"""ELM on films that people know, with a language model of 135 million parameters as teacher and as reader.

Paper: ELM (Tennenholtz et al., ICLR 2024), sections 3 and 4: MovieLens with PaLM 2 as the teacher.
Command: EAGLE_DATA=<folder that holds ml-latest-small with texts.csv> bash launch/run.sh experiments.elm
    --config=experiments/configs/elm_films.py --workdir=runs/elm_films
Hardware: two CPU cores.
Time: not known: the whole has not been run to its end. 64 answers of the teacher took from 44 seconds on, beside
    other work.
Expect: not known, for the same reason. Tests run its stages with a small model.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from experiments.configs import eagle_films, elm_minilens

SCHEMA = 3
_SMOL_LM = "weights/SmolLM2-135M-Instruct.Q4_1.gguf"


def get_config(size: str = "") -> ConfigDict:
    """`size`: quick or nothing."""
    if size not in ("", "quick"):
        raise ValueError(f"elm_films.py:{size} is none of elm_films.py and :quick")
    config = elm_minilens.get_config()
    with config.unlocked():
        config.title = "ELM on films"
        config.elm_seeds = (0,)
        # Of the 24 those that SmolLM2 can write; told a plot, it makes loops of lists and copies of examples.
        config.book = "chat"
        config.tasks = ("summary", "positive_review", "negative_review", "movie_to_viewer", "pitch", "user_profile")
        _films(config)
        _teacher(config)
        _training(config)
        _evaluation(config)
        if size == "quick":
            _make_quick(config)
    return config.lock()


def _films(config: ConfigDict) -> None:
    films = eagle_films.get_config()
    folder = Path(os.environ.get("EAGLE_DATA", "data")) / "ml-latest-small"
    config.catalogue = ConfigDict({"source": "movielens"})
    config.catalogue.movielens = ConfigDict(
        {"folder": str(folder), "texts_file": str(folder / "texts.csv"), "text": "[Genres: {genres}. ]Plot: {overview}"}
    )
    config.wals = films.wals
    config.split.min_anchor_ratings = 42  # 505 films
    config.split.validation_fraction = 0.02
    config.split.min_user_ratings = 200  # 115 users: each profile is a question to the teacher
    config.models.reader = config.models.teacher = _SMOL_LM
    config.models.features = films.models.features
    config.models.batch_size = 64
    config.models.length_multiple = 32


def _teacher(config: ConfigDict) -> None:
    config.space.tasks = config.tasks[:-1]
    config.space.asked_about = "split"
    config.space.width = 64
    config.space.shrinkage = 1e-2
    config.space.heads.penalties = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    config.teacher.shows = "text"  # of a title the teacher knows little
    config.teacher.sampling = ConfigDict(
        {"temperature": 0.6, "top_k": 0, "top_p": 0.95, "max_new_tokens": 48, "min_p": 0.05}
    )
    config.teacher.batch_size = 64
    config.teacher.max_tries = 3
    config.examples.from_space = True  # each film and task once
    config.examples.per_movie_task = 1
    config.examples.profiles = 1


def _training(config: ConfigDict) -> None:
    config.elm.adapter_hidden_width = 512
    config.elm.tokens_per_batch = 1024
    config.elm.training.stage1.num_steps = 60
    config.elm.training.stage1.learning_rate = 3e-3
    config.elm.training.stage2.num_steps = 200
    config.elm.training.stage2.learning_rate = 1e-3
    for stage in (config.elm.training.stage1, config.elm.training.stage2):
        stage.checkpoint_every = 20
        stage.log_every = 5
    config.elm.training.mode2 = "lora"
    config.elm.training.lora = ConfigDict({"rank": 16, "alpha": 32.0, "targets": "query|key|value|out|up|gate|down"})


def _evaluation(config: ConfigDict) -> None:
    config.evaluation.per_movie_task = 75
    config.evaluation.profiles = 17
    config.evaluation.training_rows = 20
    config.evaluation.sampling = ConfigDict(
        {"temperature": 0.3, "top_k": 0, "top_p": 0.95, "max_new_tokens": 48, "min_p": 0.05}
    )
    curves = config.evaluation.curves
    curves.num_paths = 8
    curves.how = ("linear",)
    curves.alphas = (0.0, 0.5, 1.0)
    curves.tags = ()
    curves.steps = (0.0,)
    curves.cav_kinds = ("linear",)


def _make_quick(config: ConfigDict) -> None:
    config.title = "ELM on films, quick"
    config.split.min_anchor_ratings = 120
    config.split.test_fraction = 0.25
    config.split.min_user_ratings = 400
    config.tasks = ("summary", "movie_to_viewer", "user_profile")
    config.space.tasks = config.tasks[:-1]
    config.space.width = 16
    config.elm.training.stage1.num_steps = 10
    config.elm.training.stage2.num_steps = 20
    config.evaluation.per_movie_task = 10
    config.evaluation.profiles = 6
    config.evaluation.training_rows = 4
    config.evaluation.curves.num_paths = 2
    config.evaluation.curves.alphas = (0.0, 1.0)
