"""Twilio Segment: its batch API, its own Python library, OAuth, and ways to ask about a write key."""
