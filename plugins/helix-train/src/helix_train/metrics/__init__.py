"""What is measured of predictions besides the loss. Importing this imports no torch."""
