"""What people write beside images, lists of names and tables of labels, and the images that it means."""
