"""Features of images: extracted, kept between evaluations, and handed out with names."""
