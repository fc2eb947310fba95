"""The page of ``sslight report``: one or several runs, from their files."""
