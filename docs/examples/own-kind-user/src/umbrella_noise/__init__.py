"""An augmentation of the kind that acme-augment brings."""
