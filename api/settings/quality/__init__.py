"""Settings about the quality of models over time: candidates, and what is done regularly."""
