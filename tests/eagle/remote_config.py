"""The quick experiment with an environment behind the endpoint that the argument names."""

from ml_collections import ConfigDict

from experiments.configs import eagle_minilens

BUDGET = 90  # requests of one run


def get_config(base_url: str) -> ConfigDict:
    config = eagle_minilens.get_config("quick")
    with config.unlocked():
        config.models.environment = "remote/loopback"
        config.remote.loopback = ConfigDict(
            {
                "base_url": base_url,
                "model": "rewriter",
                "api_key_variable": "LOOPBACK_KEY",
                "api": "chat",
                "max_tokens_field": "max_tokens",
                "request_fields": {},
                "concurrency": 4,
                "timeout_seconds": 60.0,
                "max_tries": 3,
                "backoff_seconds": 0.0,
                "max_wait_seconds": 0.0,
                "budget": {"max_requests": BUDGET, "max_tokens": None},
                "prices": {"prompt": 1.0, "completion": 4.0},
            }
        )
    return config.lock()
