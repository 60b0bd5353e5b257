"""What is at work: claims, canaries, settlements, message ids that were sent."""
