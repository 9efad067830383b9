"""Commands that say how good a model is: on labelled images, and on live traffic."""
