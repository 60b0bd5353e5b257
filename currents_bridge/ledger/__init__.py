"""The record of every object and what became of it, in a database."""
