"""Walls of the kernel by hand: Landlock over files, seccomp over system calls. What audit and own code share."""
