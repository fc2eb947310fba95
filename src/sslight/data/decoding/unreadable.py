"""The error of an image that cannot be used."""


class UnreadableImage(ValueError):
    """An image that cannot be decoded; the text is the reason, in one line and without the name."""
