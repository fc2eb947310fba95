"""Settings of the original implementation, translated."""
