"""`atalaya top`: what a running gateway does now, in a terminal."""
