"""Help texts that many options share."""

D_MODEL = "Width of the layer's input and output"
