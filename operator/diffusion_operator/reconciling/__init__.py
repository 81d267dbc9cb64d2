"""From a key to a carried-out plan: observe, plan, apply what differs, tell. Talks to a cluster only through `ClusterClient`."""
