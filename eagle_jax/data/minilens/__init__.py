"""MiniLens: a built-in world of films, users and ratings, told by a grammar that reads itself."""
