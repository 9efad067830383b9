"""Making a data set of kept images: without duplicates, and split so that it can grow."""
