"""Commands that report on longer times: costs of a month, and everything of a quarter."""
