"""Bytes: batches of records and the native kernels over them. No I/O and no clock."""
