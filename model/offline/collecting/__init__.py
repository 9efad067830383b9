"""Build a data set from kept images, without duplicates, and split so that it can grow."""
