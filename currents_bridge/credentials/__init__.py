"""What is known of a credential, and what follows from it."""
