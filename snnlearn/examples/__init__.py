"""Whole programs that use this library beside others: read them, run them, copy them."""
