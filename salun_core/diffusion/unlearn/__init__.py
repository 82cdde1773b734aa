"""Methods for diffusion models, one file each, one signature."""
