"""Object detection and instance segmentation: does the backbone help Faster R-CNN and Mask R-CNN?"""
