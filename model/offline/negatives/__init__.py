"""Generated images that are not aerial scenes: documents, screenshots, noise and plain surfaces."""
