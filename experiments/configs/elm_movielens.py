"""ELM on MovieLens' own films: a language model of your choice tells of them, and learns to read them.

Paper: ELM (Tennenholtz et al., ICLR 2024), sections 3 and 4: MovieLens with PaLM 2 as the teacher.
Command: EAGLE_DATA=<folder that holds ml-latest-small> bash launch/run.sh experiments.elm
    --config=experiments/configs/elm_movielens.py:<folder of an instruction-tuned model>
    --workdir=runs/elm_movielens
    The model is teacher and reader. For a teacher behind an endpoint add it to config.remote as
    experiments/configs/eagle_remote.py does, and --config.models.teacher=remote/<its name>.
Hardware: whatever the model asks for.
Time: not measured. The teacher is asked 1,304 times for the spaces (two tasks of the 391 films with
    50 ratings, profiles of 522 users) and 1,330 times for examples.
Expect: no numbers yet: it was run with a scripted teacher only (tests/elm/any_catalogue_test.py). No
    grammar reads these texts: slots, and whether a text names a tag, are absent from the report.
"""

from ml_collections import ConfigDict

from experiments.configs import eagle_movielens, elm_minilens

SCHEMA = 3


def get_config(model: str = "models/SmolLM2-135M-Instruct") -> ConfigDict:
    """`model`: the folder of the teacher and reader, in Hugging Face layout."""
    config = elm_minilens.get_config()
    films = eagle_movielens.get_config()
    with config.unlocked():
        config.title = "ELM on MovieLens"
        config.elm_seeds = (0,)
        config.book = "detailed"  # for instruction-tuned models
        config.tasks = ("summary", "positive_review", "pitch", "convince3", "similarities", "user_profile")
        config.catalogue = films.catalogue
        config.wals = films.wals
        config.split.min_anchor_ratings = 50
        config.models.reader = model
        config.models.teacher = model
        config.models.features = films.models.features
        config.models.batch_size = 16
        config.models.length_multiple = 64
        config.space.tasks = ("summary", "pitch")
        config.space.asked_about = "split"
        config.space.heads.penalties = films.domain_encoder.penalties
        config.teacher.shows = "text"  # small models know few titles
        config.teacher.sampling.temperature = 0.7
        config.teacher.batch_size = 64
        config.examples.per_movie_task = 200
        config.examples.profiles = 200
        config.elm.training.stage2.num_steps = 300
        config.elm.training.stage2.learning_rate = 2e-4
        config.elm.training.mode2 = "lora"
        config.elm.training.lora = ConfigDict({"rank": 8, "alpha": 16.0, "targets": "query|value"})
        config.evaluation.per_movie_task = 20
        config.evaluation.profiles = 30
        config.evaluation.curves.num_paths = 12
        config.evaluation.curves.tags = ("superhero", "atmospheric")  # of 12 and 10 training films
        config.evaluation.curves.cav_kinds = ("linear",)
        config.evaluation.curves.cavs.min_positives = 5
    return config.lock()
