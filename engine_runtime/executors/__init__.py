"""What runs a piece outside Triton's own back ends."""
