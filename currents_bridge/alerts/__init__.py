"""What is wrong, in which words, and how people hear of it."""
