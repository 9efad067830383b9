"""Databases: engines, transactions and running migrations. The lowest package; it knows no table."""
