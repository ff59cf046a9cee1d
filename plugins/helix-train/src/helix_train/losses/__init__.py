"""Training objectives: `nn.Module`s of (prediction, target, *, mask). Importing this imports no torch."""
