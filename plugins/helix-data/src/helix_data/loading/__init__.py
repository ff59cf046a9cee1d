"""How batches reach the trainer: made when asked for, or ahead of it in processes of their own."""
