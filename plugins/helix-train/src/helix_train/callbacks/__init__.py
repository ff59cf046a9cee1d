"""What may look on, and have a say, while a run trains: each a component of the kind `callback`."""
