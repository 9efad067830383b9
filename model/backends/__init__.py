"""Back ends, which turn pixels into probabilities. `base` defines the protocol; `open` chooses one by URL."""
