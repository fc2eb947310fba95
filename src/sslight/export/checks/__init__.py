"""What is measured of a file: agreement with the network, cost, and which layers bear 8 bits."""
