"""What this machine has and lacks for training, checked by doing it, each fault with its fix."""
