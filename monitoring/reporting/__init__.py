"""What a process reports about itself: error reports, and the bundle of all its reports."""
