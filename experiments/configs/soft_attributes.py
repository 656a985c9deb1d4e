"""Concept activation vectors from MovieLens' tags, against raters' orderings of films.

Paper: ELM (arXiv 2310.04475), section 5: directions of an embedding space along which a concept
    grows; Gopfert et al. 2022 (arXiv 2202.02830), the ranking variant; Balog et al. 2021
    (arXiv 2105.09179), the orderings and gamma.
Command: EAGLE_DATA=<its folder> bash launch/run.sh experiments.soft_attributes
    The folder holds ml-latest-small, with texts.csv, and soft-attributes; the sentence encoder is
    found as in eagle_movielens.py. Only tags of the attributes' own names:
    --config=experiments/configs/soft_attributes.py:exact --workdir=runs/soft_attributes_exact
Hardware: two CPU cores.
Time: 3.5 minutes on a machine busy with other jobs (12 to 14 of them for the two cores), 2 minutes
    of CPU time; half of it encodes 1,396 overviews.
Expect: 5,991 orderings, 303 titles, all of known films. Tags are few: 33 of 60 attributes have six
    or more tagged films with related tags, 2 (funny, predictable) by their own names. Mean gamma
    over these 33 attributes, 95 % intervals over attributes:
        scoring                            WALS (d = 9)          sentences (d = 384)
        random direction                   0.008 [-0.01, 0.03]   0.001 [-0.01, 0.01]
        linear CAV from tags               0.154 [0.11, 0.20]    0.165 [0.11, 0.22]
        ranking CAV from tags              0.205 [0.15, 0.26]    0.159 [0.11, 0.21]
        CAV of the orderings, new films    0.378 [0.34, 0.42]    0.371 [0.32, 0.42]
        CAV of the orderings, new raters   0.391 [0.35, 0.43]    0.462 [0.41, 0.51]
        popularity 0.041 [0.01, 0.07]; other raters' opinions, no embedding 0.434 [0.38, 0.49]
    CAVs from tags are above chance and popularity in both embeddings. The ranking variant is above
    the linear one in WALS (by 0.051 [0.020, 0.084]) and not told apart from it in the sentences.
    With the orderings as labels the same embeddings reach 1.8 to 2.5 times as much on films not
    trained on: it is these sparse tags that limit, more than the embeddings. Several tags mislead:
    "playful" (quirky, whimsical) is -0.17 in WALS, "predictable" -0.03 and -0.11.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from experiments.configs.eagle_movielens import get_config as eagle_movielens

SCHEMA = 3

# Written from the list of tags alone, before any gamma was seen. An attribute that is not here has
# no tag that says nearly the same.
_ANIMATION = ("animation", "anime", "cartoon", "disney", "pixar", "computer animation")
_GORE = ("gore", "goretastic", "bloody", "blood", "blood splatters", "r strong bloody violence")
_SCARY = ("scary", "horror", "creepy", "frightening", "spooky")
_SAD = ("sad", "tear jerker", "tearjerking", "tearjerker", "heartbreaking", "bittersweet")
_THOUGHT = ("thought provoking", "philosophical", "philosophy", "cerebral", "intellectual")
_RELATED = {
    "action filled": ("action", "action packed", "fast paced", "martial arts"),
    "animated": _ANIMATION,
    "artsy": ("artistic", "art house", "arthouse", "art", "stylized", "avant garde"),
    "bizarre": ("weird", "surreal", "surrealism", "strange", "absurd", "hallucinatory", "crazy"),
    "boring": ("dull", "slow", "too long", "way too long"),
    "cartoonish": ("cartoon", "animation", "anime"),
    "cheesy": ("campy", "camp", "kitsch"),
    "complicated": ("complex", "confusing", "confusing ending", "mindfuck", "cerebral"),
    "confusing": ("confusing ending", "complicated", "complex", "mindfuck"),
    "crazy gore": _GORE,
    "documentary style": ("documentary", "mockumentary"),
    "dramatic": ("drama", "emotional", "tense"),
    "entertaining": ("fun", "feel good"),
    "factual": ("true story", "based on a true story", "history", "historical", "documentary"),
    "feels real": ("realistic", "true story", "based on a true story"),
    "funny": ("very funny", "hilarious", "comedy", "humorous", "humor", "witty"),
    "gory": _GORE,
    "harsh": ("brutal", "brutality", "gritty", "bleak"),
    "heartfelt": ("heartwarming", "touching", "emotional", "sentimental"),
    "impactful": ("powerful ending", "powerful", "thought provoking", "emotional"),
    "intense": ("tense", "suspense", "suspenseful"),
    "juvenile humor": ("crude humor", "sexual humor", "stupid but funny"),
    "light-hearted": ("feel good", "fun", "lighthearted", "heartwarming"),
    "long": ("too long", "way too long"),
    "make you think": _THOUGHT,
    "mindless": ("stupid", "mindless one liners"),
    "mushy mushy": ("sentimental", "romance", "love story", "romantic"),
    "original": ("original plot", "creative", "creativity", "unique", "imaginative"),
    "playful": ("quirky", "whimsical", "fun"),
    "predictable": ("predictible plot",),
    "romantic": ("romance", "love story", "love", "romantic comedy"),
    "sappy": ("sentimental", "tear jerker", "romance", "heartwarming"),
    "scary": _SCARY,
    "slow-paced": ("slow", "boring"),
    "tearful": _SAD,
    "terrifying": (*_SCARY, "disturbing"),
    "tongue and cheek": ("tongue in cheek", "satire", "satirical", "ironic", "parody", "spoof"),
    "twisty": ("twist ending", "twist", "plot twist", "twists turns", "twisted"),
    "unique story": ("original", "original plot", "unique", "imaginative"),
    "violent": ("violence", "brutal", "brutality", "bloody", "r strong bloody violence"),
}


def get_config(variant: str = "related") -> ConfigDict:
    """`variant`: related (tags of nearly the same meaning count too) or exact (own names only)."""
    if variant not in ("related", "exact"):
        raise ValueError(f"unknown variant {variant!r}: expected related or exact")
    movielens = eagle_movielens()
    data = Path(os.environ.get("EAGLE_DATA", "data"))
    config = ConfigDict()
    config.title = "Concept activation vectors on MovieLens"
    config.movielens = movielens.catalogue.movielens.folder
    config.texts_file = movielens.catalogue.movielens.texts_file
    config.orderings = str(data / "soft-attributes" / "soft-attributes.csv")
    config.encoder = movielens.models.features  # all-MiniLM-L6-v2
    config.encoder_batch_size = 64
    config.wals = movielens.wals.copy_and_resolve_references()
    config.related_tags = ConfigDict(_RELATED if variant == "related" else {})
    config.lower_per_positive = 20  # films of other tags of the same user, for the ranking CAV
    config.scores = ConfigDict(
        {
            "cav": {
                "penalties": (0.003, 0.03, 0.3, 3.0),
                "num_folds": 4,
                "min_positives": 6,
                "tolerance": 1e-5,  # of the gradient, relative to that at 0
                "max_iterations": 40,
                "seed": 0,
            },
            "reference_penalties": (0.03, 0.3, 3.0),
            "rater_folds": 2,
            "num_random": 20,
            "bootstrap": {"num_resamples": 2000, "confidence": 0.95, "seed": 0},
            "seed": 0,
        }
    )
    config.seed = 0
    return config.lock()
