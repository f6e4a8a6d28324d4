"""Flywright: the Nemotron-4 alignment recipe, from text to a served and evaluated model."""
