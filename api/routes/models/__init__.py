"""`/v1/models` and `/v1/labels`: the registry, the quality of its models on live traffic, and their labels."""
