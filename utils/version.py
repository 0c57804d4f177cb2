"""Which version of the project wrote a checkpoint, a settings file or a latency table."""

VERSION = "0.5.0"
