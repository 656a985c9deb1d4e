"""A decoder with adapters, its prompts and its two stages of training."""
