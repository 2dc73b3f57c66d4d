"""Two runs over the same images, compared pixel by pixel."""
