"""What the loop has to know of the machine: devices, processes that talk, memory, time, signals."""
