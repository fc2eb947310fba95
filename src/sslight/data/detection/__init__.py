"""Annotated images: COCO and Pascal VOC folders, and the batches of a detector."""
