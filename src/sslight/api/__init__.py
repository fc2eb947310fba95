"""The program's work as Python functions, a file a command; here the rooms are put together."""
