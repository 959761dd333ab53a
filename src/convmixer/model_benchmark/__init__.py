"""Model files side by side on this machine: size, speed, and what they get right."""
