"""Pages of results; they are made of plain data and need no network."""
