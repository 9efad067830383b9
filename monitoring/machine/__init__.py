"""What the operating system reports of the machine, the container and the process."""
