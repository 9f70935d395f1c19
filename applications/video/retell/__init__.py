"""Edit a video of a person speaking by editing the words."""

__version__ = "0.1.0"
