"""`atalaya top`: show what a running gateway is doing, in a terminal."""
