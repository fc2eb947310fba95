"""Folders of images, and image files that are named one by one."""
