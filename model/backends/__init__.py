"""Back ends, which turn pixels into probabilities: the protocol in `base`, chosen by URL in `open`."""
