"""Stages that several experiments have, and the models that play their roles."""
