"""Whether images and predictions differ from those that a model was trained and measured on (ADR 0060)."""
