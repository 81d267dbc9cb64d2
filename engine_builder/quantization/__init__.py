"""ModelOpt fake quantization, calibrated on the model's own trajectories."""
