"""What is expensive to decode, kept on disk."""
