"""What the operating system reports about the machine, the container and the process."""
