"""What ELM's tiny runs with a scripted teacher behind an endpoint have in common."""

import dataclasses

from tests.language_model.remote import scripted_client


def make_tiny(config, server) -> None:
    """Changes the values of a config: seconds long, told by the model `scripted` of a server."""
    config["models"] |= {"features": "minilens/environment_a", "teacher": "remote/scripted"}
    config["models"] |= {"length_multiple": 192, "batch_size": 8}
    config["space"]["width"] = 6
    config["teacher"]["max_tries"] = 2
    config["remote"]["scripted"] = dataclasses.asdict(scripted_client.settings(server, concurrency=4))
    config["elm"] |= {"tokens_per_batch": 384, "adapter_hidden_width": 8}
    for stage in ("stage1", "stage2"):
        config["elm"]["training"][stage] |= {"num_steps": 2, "warmup_steps": 1}
    evaluation = config["evaluation"]
    evaluation |= {"per_movie_task": 4, "profiles": 4}
    evaluation["sampling"]["max_new_tokens"] = 16
    evaluation["bootstrap"]["num_resamples"] = 20
