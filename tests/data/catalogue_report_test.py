"""What is told of a catalogue is counted again here; `eagle-jax catalogue` tells it of any experiment's config."""

import dataclasses
import re

import numpy as np
import pytest

from eagle_jax.base.settings import to_settings
from eagle_jax.data.catalogue_report import DataSettings, tell_catalogue
from eagle_jax.data.sources import load_catalogue
from eagle_jax.data.splits import split_catalogue
from tests.data.readers.shop import draw_shop, files_of_shop, write_rows
from tests.programs import run_module
from tests.small_world import SPLIT


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The settings of a shop's files, one rating of which is of no product."""
    folder = tmp_path_factory.mktemp("shop")
    products, ratings = draw_shop(num_products=60, num_users=80)
    ratings[4]["sku"] = 77
    for name, rows in (("products.csv", products), ("ratings.csv", ratings)):
        write_rows(folder / name, rows)
    return files_of_shop(folder / "products.csv", folder / "ratings.csv")


def settings(files, **split):
    split = {"rating_fraction": 0.3, "min_anchor_ratings": 5, "min_user_ratings": 10} | split
    data = {"catalogue": {"source": "files", "files": files}, "split": dataclasses.asdict(SPLIT) | split}
    return to_settings(DataSettings, data, "config")


def test_the_numbers_are_those_of_the_catalogue(files):
    data = settings(files)
    told = tell_catalogue(data)
    catalogue, _ = load_catalogue(data.catalogue)
    ratings, split = catalogue.ratings, split_catalogue(catalogue, data.split)
    counts = [int((ratings.user_index == user).sum()) for user in range(ratings.num_users)]
    held_out = [int((split.test.user_index == user).sum()) for user in range(ratings.num_users)]
    words = [len(re.sub(r"#\w+", "", text).split()) for text in catalogue.descriptions]
    for line in (
        f"60 products, 80 users, {len(ratings)} ratings, 0 tags",
        f"ratings (explicit): 1 to 10, 10 different ones, mean {ratings.rating.mean():.3g};",
        f"{len(ratings) / (80 * 60):.3%} of all pairs are rated",
        f"ratings of a user: {min(counts)} to {max(counts)}, median {np.median(counts):g}",
        f"words of a text: {min(words)} to {max(words)}, median {np.median(words):g}",
        "1 x ratings.csv: unknown sku",
        "ratings.csv:6: unknown sku: 77",
        f"{len(split.train)} ratings to fit, {len(split.test)} held out",
        f"anchors: {len(split.entities['train'])} train, {len(split.entities['validation'])} validation",
        f"users whose ranking can be checked: {sum(count >= 5 for count in held_out)}",
    ):
        assert line in told, line


def test_what_cannot_be_used_has_its_reason(files):
    told = tell_catalogue(settings(files, min_user_ratings=50))
    assert "nothing: config.split: no train users left of 0 with enough ratings; lower min_anchor_ratings" in told
    told = tell_catalogue(settings(files, rating_fraction=0.1))
    assert "users whose ranking can be checked: absent, none has 5 held-out ratings" in told


def run(*arguments):
    return run_module("eagle_jax", "catalogue", *arguments, options=["-X", "importtime"])


def test_the_command_needs_flags_alone_and_no_jax(files):
    flags = [f"--config.catalogue.files.{name}={value}" for name, value in files.items()]
    done = run("--config.catalogue.source=files", *flags)
    assert done.returncode == 0 and "60 products, 80 users" in done.stdout
    assert not re.search(r"\| +(jax|flax)$", done.stderr, re.MULTILINE)
    wrong = run("--config.catalogue.source=files", *flags, "--config.catalogue.files.rating=score")
    (line,) = [line for line in wrong.stderr.splitlines() if not line.startswith("import time:")]
    assert wrong.returncode == 2 and "ratings.csv: line 1: no column score; the header" in line


def test_a_config_without_data_is_refused():
    done = run("--config=experiments/configs/catalogue_designs.py")
    assert done.returncode == 2 and "the config has no group catalogue, split" in done.stderr
