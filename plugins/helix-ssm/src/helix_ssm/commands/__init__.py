"""The commands that helix-ssm brings to `helix`."""
