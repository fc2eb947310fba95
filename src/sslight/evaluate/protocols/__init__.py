"""The protocols, a file each: how a backbone is measured."""
