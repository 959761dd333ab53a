"""What a person sees on a terminal: progress, plain text, streams that may be gone."""
