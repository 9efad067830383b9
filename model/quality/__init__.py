"""How good a model is on live traffic: results on predictions whose true label came, and an estimate for all others."""
