"""pcaptools: small composable commands for packet captures. Importing the package imports nothing else."""

__version__ = "0.1.0"
