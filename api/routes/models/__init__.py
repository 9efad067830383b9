"""`/v1/models` and `/v1/labels`: the registry, how good its models are on live traffic, and what they can predict."""
