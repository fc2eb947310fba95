"""One file for each command: parse, call the api, print."""
