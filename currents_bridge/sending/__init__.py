"""How messages leave: packed into batches, paced, repeated, and halved down to what is refused."""
