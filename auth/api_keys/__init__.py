"""API keys: issuing, verifying and limiting them, and recording their last use."""
