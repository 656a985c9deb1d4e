"""Choice of the actions to learn from: the G-optimal design and the reference distributions."""
