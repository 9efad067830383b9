"""Rate limits: sliding windows, the stores that count requests, and the decorators of the routes."""
