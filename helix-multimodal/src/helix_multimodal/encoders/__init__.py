"""From a batch of one kind of data to tokens that a sequence layer reads."""
