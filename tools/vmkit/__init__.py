"""What `tools/vm` is made of: kernels, the image that they boot, what runs in it, and the table of what was seen."""
