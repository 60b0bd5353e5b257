"""Moves Braze Currents events from S3 into Segment: every event once, none lost."""

from importlib.metadata import version

__version__ = version("currents-bridge")
