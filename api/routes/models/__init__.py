"""`/v1/models`: the registry, and how good its models are on live traffic."""
