"""What a run tells: metrics, pictures and progress."""
