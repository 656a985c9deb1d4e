"""A made-up shop goes from its files to an EAGLE report by the config of `docs/catalogue.md`."""

import json
import re
from pathlib import Path

import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.eagle.run import run_eagle
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.stages.run import Run
from tests.data.readers.shop import COLLECTIONS, STYLES, draw_shop, write_rows
from tests.tiny_runs import TINY_EAGLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "catalogue.md"


def write_text(prompt, rng):
    """Who rewrites products, proposes changes and tells users."""
    if prompt.opening == "#BEGIN_USER_PROFILE":
        return f"likes what is {STYLES[int(rng.integers(len(STYLES)))]}"
    if prompt.opening == "#BEGIN_ACTION":
        collection, style = (names[int(rng.integers(len(names)))] for names in (COLLECTIONS, STYLES))
        return f"make it {style} as the {collection} collection, no. {int(rng.integers(1000))}"
    *before, action = prompt.text.removesuffix(prompt.opening).split("#BEGIN_ACTION ")
    assert "REASONS" not in prompt.text  # which the data leave empty
    shown = re.search("#BEGIN_DESCRIPTION (.*) #END_DESCRIPTION", before[0])[1]
    return f"{shown} {action.removesuffix('#END_ACTION ').strip()}"


@pytest.fixture
def scripted(monkeypatch):
    """The roles of generator and environment are played by `write_text`; the policy is the built-in one."""
    generator = Run.generator

    def either(run, name, **options):
        is_writer = name in ("minilens/generator", "minilens/environment_a", "minilens/environment_b")
        return ScriptedGenerator(write_text, name) if is_writer else generator(run, name, **options)

    monkeypatch.setattr(Run, "generator", either)


def config_of_the_page(folder, kind):
    """The page's config, cut down to seconds."""
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    (folder / "shop.py").write_text(block)
    body = block.split("with config.unlocked():\n")[1].split("    return")[0]
    assert len(body.splitlines()) <= 15
    config = load_config(f"{folder / 'shop.py'}:{kind}")
    without = ("catalogue.", "evaluation.num_reachable")
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({k: v for k, v in TINY_EAGLE.items() if not k.startswith(without)})
    return to_settings(EagleExperiment, config)


def test_a_shop_from_files_of_every_kind_to_a_report(tmp_path, monkeypatch, scripted):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    products, ratings = draw_shop()
    assert (len(products), len({row["customer"] for row in ratings})) == (500, 3000)
    made = {}
    for kind in ("csv", "jsonl", "parquet"):
        for name, rows in (("products", products), ("ratings", ratings)):
            write_rows(tmp_path / f"{name}.{kind}", rows)
        report = run_eagle(config_of_the_page(tmp_path, kind), tmp_path / "run")
        # The data are the same, so that nothing is made a second time.
        made[kind] = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*/MANIFEST.json")}
        assert report.name == "report.html" and "EAGLE on a shop" in report.read_text()
    assert made["csv"] == made["jsonl"] == made["parquet"] and len(made["csv"]) > 6
    facts = json.loads((tmp_path / "run" / "catalogue" / "facts.json").read_text())
    assert (facts["num_entities"], facts["num_users"]) == (500, 3000)
    assert facts["num_training_ratings"] + facts["num_held_out_ratings"] == len(ratings)
    assert facts["held_out_rmse"] < facts["baseline_rmse"]  # tastes are there and are found
    told = (tmp_path / "run" / "report.md").read_text()
    assert "product" in told and "absent: of the held-out ratings: no user has 5" in told
