"""Doubles, servers and sample files, for the tests, the benchmarks and `demo`."""
