"""Edges to the network: injection into devices."""
