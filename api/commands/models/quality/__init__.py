"""Commands that measure how good a model is: on labelled images, and on live traffic."""
