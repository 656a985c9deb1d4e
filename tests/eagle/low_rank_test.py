"""The policy trained by low-rank updates, from the command line: what it writes."""

import numpy as np

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter
from eagle_jax.language_model.decoder.transformer import forward
from eagle_jax.stages.models import load_model

POLICY_STAGES = ("reference_g_optimal", "agent_g_optimal_0")
MODELS = ("reference_g_optimal/model", "agent_g_optimal_0/model", "agent_g_optimal_0/last")
LOW_RANK = (
    "--config.policy_training.mode=lora",
    "--config.policy_training.lora.rank=2",
    "--config.policy_training.remat=True",
    "--config.policy_training.scan_layers=True",
)


def logits(model):
    tokens = np.random.default_rng(0).integers(4, model.config.vocab_size, (2, 12))
    return np.asarray(forward(model.config, model.params, tokens, np.ones((2, 12), bool)).logits)


def checkpoint_bytes(stage):
    return sum(path.stat().st_size for path in (stage / "checkpoints").rglob("*") if path.is_file())


def test_policies_are_updates_of_one_model_and_whole_models(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run", without=(*POLICY_STAGES, "evaluation"))
    code, _, stderr = eagle.run(workdir, LOW_RANK)
    assert code == 0, stderr

    pretrained = load_model("minilens/policy")
    start = logits(pretrained)
    moved = []
    for model in MODELS:
        folder = workdir / model
        adapted = load_peft_adapter(pretrained, folder / "adapter")
        assert adapted.config.lora.rank == 2 and adapted.config.lora.scale == 8.0
        whole = load_language_model(folder)
        assert whole.config == pretrained.config
        moved.append(logits(adapted))
        np.testing.assert_allclose(logits(whole), moved[-1], atol=1e-3)
    reference, _, last = moved  # the best agent may be the reference policy itself
    assert np.abs(reference - start).max() > 0.01
    assert np.abs(last - reference).max() > 1e-4
    for stage in POLICY_STAGES:
        assert checkpoint_bytes(workdir / stage) < 0.3 * checkpoint_bytes(finished.workdir / stage)
