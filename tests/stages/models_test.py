"""Features by name: sentence encoders and decoders, told apart by their folder's files."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.data.sources import load_catalogue
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.domain_encoder import DomainEncoder, compute_features, encoder_quality
from eagle_jax.embeddings.regression_head import fit_head
from eagle_jax.embeddings.sentences.encoder import SentenceEncoder
from eagle_jax.embeddings.wals import fit_wals
from eagle_jax.language_model.checkpoints.hf_checkpoints import save_language_model
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.sampling.local import LocalFeatures, LocalGenerator
from eagle_jax.stages.models import load_features, load_model


def test_a_decoder_gives_its_states_and_is_named_as_its_generator():
    features = load_features("minilens/environment_a", 8)
    assert isinstance(features, LocalFeatures)
    generator = LocalGenerator(load_model("minilens/environment_a"), 8, 32)
    assert features.name == generator.name != load_features("minilens/environment_b", 8).name


def test_a_sentence_encoder_is_recognised(mini_lm):
    features = load_features(str(mini_lm), 8)
    assert isinstance(features, SentenceEncoder)
    assert features.name.startswith("model@") and features(["A film."]).shape == (1, 384)
    assert load_features(str(mini_lm), 8) is features


@pytest.mark.parametrize("load", [load_model, lambda name: load_features(name, 8)])
@pytest.mark.parametrize("name", ["minilens/nobody", "minilens/", "minilens", "no/such/folder"])
def test_a_model_that_is_not_there_is_named_with_those_that_are(name, load):
    others = "minilens/environment_a.*minilens/policy.*"
    with pytest.raises(UserError, match=f"config.models: '{name}' is neither one of .*{others} nor a folder"):
        load(name)


def test_a_name_may_hold_arguments_of_the_chat_template(tmp_path):
    model = load_model("minilens/policy")
    model.tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ messages[0].content }}{% if enable_thinking is false %} .{% endif %}{{ depth }}"
    for chat in (False, True):
        if chat:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        save_language_model(dataclasses.replace(model, tokenizer=load_tokenizer(tmp_path)), tmp_path, "float32")
        name = f"{tmp_path}?enable_thinking=false&depth=2"
        if not chat:
            with pytest.raises(UserError, match="has no chat template that could take enable_thinking=false&depth=2"):
                load_model(name)
    plain, told = load_model(str(tmp_path)), load_model(name)
    assert (plain.tokenizer.chat_template.render("a"), told.tokenizer.chat_template.render("a")) == ("a", "a .2")
    # Caches and stages must not mix up what they say.
    assert LocalGenerator(told, 8, 32).name.startswith(f"{tmp_path.name}?enable_thinking=false&depth=2@")
    for wrong, message in (("?enable_thinking", "name=value"), ("?thoughts=1", "takes no argument 'thoughts'")):
        with pytest.raises(UserError, match=message):
            load_model(f"{tmp_path}{wrong}")


def test_mini_lm_tells_more_of_held_out_films_than_the_small_decoder(eagle_data, mini_lm):
    """E_D of MovieLens' config, fitted on the films with 60 ratings or more."""
    config = load_config("experiments/configs/eagle_movielens.py")
    experiment = to_settings(EagleExperiment, config)
    catalogue, _ = load_catalogue(experiment.catalogue)
    split = split_catalogue(catalogue, experiment.split)
    wals = fit_wals(split.train, experiment.wals, jax.random.key(0))
    targets, users = np.asarray(wals.item_embeddings), np.asarray(wals.user_embeddings)
    counts = np.bincount(split.train.item_index, minlength=len(targets))
    test = split.entities["test"]
    known = np.setdiff1d(np.flatnonzero(counts >= 60), np.concatenate([test, split.entities["validation"]]))

    def quality(name: str):
        features_fn = load_features(name, 32)
        features = compute_features(features_fn, [catalogue.descriptions[row] for row in known])
        fit = fit_head(features, targets[known], counts[known], experiment.domain_encoder, jax.random.key(0))
        encoder = DomainEncoder(features_fn, fit)
        embedded = encoder([catalogue.descriptions[row] for row in test])
        return encoder_quality(embedded, targets[test], users)

    mini = quality(str(mini_lm))
    small = quality(str(eagle_data / "lm" / "tinystories-656k"))
    assert mini.relative_error < small.relative_error
    assert mini.r_squared > small.r_squared
    assert mini.rank_correlation > small.rank_correlation
