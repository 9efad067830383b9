"""Train, export and evaluate models. Serving code never imports this package."""
