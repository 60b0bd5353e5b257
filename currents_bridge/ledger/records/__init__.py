"""What is kept beside the objects: books, dead letters, quarantine, credentials, alerts."""
