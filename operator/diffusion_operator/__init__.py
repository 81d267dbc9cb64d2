"""The Kubernetes operator. Imports neither torch nor the builder."""
