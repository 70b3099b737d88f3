"""Scaling laws that travel with the weights."""
