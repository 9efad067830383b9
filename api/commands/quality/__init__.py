"""Commands that keep a model good over time."""
