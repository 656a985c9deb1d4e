"""A trained agent in use: what it would make of an item for a user."""
