"""What a file is, told from its content first and its name last, with a score and a reason."""
