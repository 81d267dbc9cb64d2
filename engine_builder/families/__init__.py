"""The architectures; the only place that knows them."""
