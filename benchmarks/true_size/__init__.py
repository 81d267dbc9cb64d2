"""FLUX.2 klein-4B's real size with random weights, through the builder's own functions: finds what tiny models hide."""
