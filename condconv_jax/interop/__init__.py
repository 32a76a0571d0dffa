"""Weights in and out (floor 4)."""
