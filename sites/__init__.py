"""What exists, what is wanted, what was seen at a site; the hub that stands for it."""
