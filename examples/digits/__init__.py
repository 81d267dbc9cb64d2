"""A small FLUX.2 that draws coloured digits: its vocabulary, a judge of its pictures, and how it was trained."""
