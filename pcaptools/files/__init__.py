"""Edges to the file system: captures, compression, archives, output."""
