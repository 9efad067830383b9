"""The use case of the gateway: from an authenticated request to a recorded prediction, over any transport."""
