"""Commands that measure the quality of a model on labelled images and on live traffic."""
