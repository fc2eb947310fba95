"""The page of ``sslight views``: crops and views of a few images, and numbers about them."""
