"""Monthly quotas, and counting what callers use."""
