"""MiniLens-LM: the small decoders that play every language-model role in the embedded world.

Paper: EAGLE (arXiv 2406.00024), section 5: the roles of Gemini Nano (policy), Pro and Ultra
    (environments, generator and rater), here played by decoders of 0.4M and 0.6M parameters.
Command: bash launch/run.sh experiments.pretrain --workdir=/tmp/minilens_lm
    (one role: --config=experiments/configs/pretrain_minilens.py:policy), then copy
    <workdir>/<role>/model to eagle_jax/data/minilens/models/<role>.
Hardware: two CPU cores.
Time: about an hour for the five roles.
Expect: the environments follow the instruction in at least 90 % of fresh films, keep the other
    slots in at least 90 % and are well-formed in at least 99 % at temperature 0.5; the reader
    names at least 90 % of the slots of a film that it is given by title, over the tasks. What was
    measured is in eagle_jax/data/minilens/models/<role>/card.json.
"""

from ml_collections import ConfigDict

SCHEMA = 3

_ROLES = ("environment_a", "environment_b", "generator", "policy", "reader")


def get_config(role: str = "all") -> ConfigDict:
    """`role`: environment_a, environment_b, generator, policy, reader, or all of them."""
    if role != "all" and role not in _ROLES:
        raise ValueError(f"unknown role {role!r}: expected all, {', '.join(_ROLES)}")
    makers = {"policy": _policy, "generator": _generator, "reader": _reader}
    config = ConfigDict()
    for name in _ROLES if role == "all" else (role,):
        config[name] = makers[name]() if name in makers else _environment(name[-1])
    return config.lock()


def _environment(dialect: str) -> ConfigDict:
    """Rewrites; one for each dialect of the grammar."""
    config = _decoder(seed=1 if dialect == "a" else 2, num_steps=1200)
    config.dialect = dialect  # which of the grammar's two ways to tell a film it writes
    config.task_shares = ConfigDict({"rewrite": 0.85, "describe": 0.15})
    return config


def _generator() -> ConfigDict:
    """Writes profiles and candidate actions, and answers the rater form.

    The form's answers stay near chance (see its card.json), and did so in a model trained on
    nothing else for 1,500 steps: comparing two texts with a profile is beyond this size and time.
    """
    config = _decoder(seed=4, num_steps=1800)
    config.task_shares = ConfigDict(
        {"profile": 0.58, "rater": 0.2, "personalised_action": 0.14, "generic_action": 0.08}
    )
    return config


def _policy() -> ConfigDict:
    """Only proposes; it knows films from describing and rewriting a few."""
    config = _decoder(seed=3, num_steps=1500)
    config.hidden_size = 96
    config.intermediate_size = 256
    config.num_heads = 3
    config.task_shares = ConfigDict(
        {"personalised_action": 0.55, "generic_action": 0.2, "rewrite": 0.15, "describe": 0.1}
    )
    return config


def _reader() -> ConfigDict:
    """ELM's base: the tasks as texts, about films given by title or told, pairs, and users.

    After these steps it names nine in ten of a film's slots; it compares two films half right and
    hardly infers a taste from ten titles (see its card.json): ELM's own training teaches these.
    """
    config = _decoder(seed=5, num_steps=1000)
    config.task_shares = ConfigDict({"film_title": 0.35, "film_text": 0.25, "film_pair": 0.25, "user": 0.15})
    return config


def _decoder(seed: int, num_steps: int) -> ConfigDict:
    config = ConfigDict()
    config.dialect = "a"
    config.seed = seed
    config.hidden_size = 128
    config.intermediate_size = 320
    config.num_layers = 3
    config.num_heads = 4
    config.max_position_embeddings = 512
    config.initializer_range = 0.05  # 0.02, the large models' choice, learns to copy far later
    config.task_shares = ConfigDict()
    config.tokens_per_batch = 4096
    config.prompt_loss_weight = 0.1  # a little: the prompt's texts are good language too
    config.training = ConfigDict(
        {
            "num_steps": num_steps,
            "learning_rate": 3e-3,
            "warmup_steps": 100,
            "weight_decay": 0.05,
            "max_gradient_norm": 1.0,
            "checkpoint_every": 200,
            "log_every": 25,
        }
    )
    config.quality_examples = 512  # fresh examples for the measured quality
    return config
