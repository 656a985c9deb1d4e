"""An agent that learns what actions make of texts, in the embedding space, and asks for what promises its user most."""
