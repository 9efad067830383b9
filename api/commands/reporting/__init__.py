"""Commands that report on longer periods: the costs of a month, and everything in a quarter."""
