"""Benchmarks: run from the checkout, never installed."""
