"""From prompts to tokens, batch by batch."""
