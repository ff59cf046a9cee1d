"""What `helix new` does: a complete distribution, written from the template of a kind."""
