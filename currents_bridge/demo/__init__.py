"""The program shown at work, without any account."""
