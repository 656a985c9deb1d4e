"""Ratings to behavioral embeddings, texts to domain embeddings, and the utility of both."""
