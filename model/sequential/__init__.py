"""Tests that stay valid however often the results are looked at, in pure Python."""
