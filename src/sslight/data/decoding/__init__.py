"""From encoded bytes to pixels, within limits."""
