"""Avro containers from anywhere become columns, as far as they can be read, at a bounded cost."""
