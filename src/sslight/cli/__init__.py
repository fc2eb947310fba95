"""The commands: each parses its words, calls ``api`` and prints."""
