"""Data that the package brings."""
