"""EAGLE on MovieLens with a large model behind an endpoint as environment and data writer.

Paper: EAGLE (arXiv 2406.00024), section 5: there large models (Gemini) play the environment and
    write the data, and a smaller one is trained as policy. Here the variant says where the large
    model is: vllm (your own server), gemini or openai.
Command: EAGLE_DATA=<folder that holds ml-latest-small and lm> EAGLE_EXTRAS=remote
    bash launch/run.sh experiments.eagle --config=experiments/configs/eagle_remote.py:vllm
    --workdir=runs/eagle_remote --config.models.policy=<folder of an instruction-tuned model>
    while `vllm serve google/gemma-2-9b-it` runs beside it. For the other variants GEMINI_API_KEY or
    OPENAI_API_KEY has to hold the key.
Hardware: an accelerator that trains the policy (2 billion parameters by LoRA: 16 GiB), and the
    endpoint.
Time: that of the endpoint; about 8,000 requests of some 700 prompt and 300 new tokens.
Expect: not measured: no such endpoint was at hand. The client is tested against `transformers
    serve` and against a server that fails in every way (tests/language_model/remote), this
    experiment's way through it with a scripted server (tests/eagle/remote_test.py). A run that
    stops at its budget or is killed goes on with the same command and pays nothing twice; the
    report has requests, tokens and, once `prices` are set, cost.
"""

from ml_collections import ConfigDict

from experiments.configs import eagle_movielens

SCHEMA = 3

# What differs between endpoints. Prices change: look them up and set them, in any currency.
_ENDPOINTS = {
    "vllm": {
        "base_url": "http://127.0.0.1:8000/v1",
        "model": "google/gemma-2-9b-it",  # as `vllm serve` was told
        "api_key_variable": None,  # a name where the server was given an --api-key
        "api": "chat",  # completion for base models
        "max_tokens_field": "max_tokens",
        "request_fields": {},
        "concurrency": 64,  # vLLM batches what comes at the same time
        "prices": {"prompt": 0.0, "completion": 0.0},
    },
    "gemini": {
        "base_url": "https://generativelanguage.googleapis.com/v1beta/openai/",
        "model": "gemini-2.5-flash",
        "api_key_variable": "GEMINI_API_KEY",
        "api": "chat",
        "max_tokens_field": "max_tokens",
        # No thinking: it would use up max_new_tokens. This endpoint refuses a seed.
        "request_fields": {"reasoning_effort": "none", "seed": None},
        "concurrency": 16,
        "prices": {"prompt": None, "completion": None},
    },
    "openai": {
        "base_url": "https://api.openai.com/v1",
        "model": "gpt-4.1-mini",
        "api_key_variable": "OPENAI_API_KEY",
        "api": "chat",
        "max_tokens_field": "max_completion_tokens",
        "request_fields": {},
        "concurrency": 16,
        "prices": {"prompt": None, "completion": None},
    },
}


def get_config(variant: str = "vllm") -> ConfigDict:
    """`variant`: vllm, gemini or openai."""
    if variant not in _ENDPOINTS:
        raise ValueError(f"unknown variant {variant!r}: expected one of {', '.join(_ENDPOINTS)}")
    config = eagle_movielens.get_config()
    with config.unlocked():
        config.title = f"EAGLE on MovieLens, {_ENDPOINTS[variant]['model']} as environment"
        config.prompts = "detailed"  # for instruction-tuned models
        config.models.policy = "models/gemma-2-2b-it"  # a folder in Hugging Face layout
        config.models.environment = f"remote/{variant}"
        config.models.generator = f"remote/{variant}"
        config.models.rater = f"remote/{variant}"
        config.remote[variant] = ConfigDict(
            _ENDPOINTS[variant]
            | {
                "timeout_seconds": 120.0,
                "max_tries": 8,  # for one answer; then the run ends, and goes on when told to
                "backoff_seconds": 1.0,  # doubled for each further try
                "max_wait_seconds": 60.0,
                # Of one run of the command: with the next one it begins anew.
                "budget": {"max_requests": 20_000, "max_tokens": 20_000_000},
            }
        )
        config.policy_training.mode = "lora"
        # These models write whole sentences.
        config.environment.max_new_tokens = 400
        config.profiles.titles_per_side = 10
        config.profiles.max_tries = 3
        config.profiles.sampling.max_new_tokens = 300
        config.candidates.sampling.max_new_tokens = 80
        config.agent.training.policy.max_new_tokens = 80
        config.agent.training.policy_learning_rate = 1e-5  # paper
        config.reference.training.learning_rate = 1e-5
        config.evaluation.rater = ConfigDict({"temperature": 0.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 100})
    return config.lock()
