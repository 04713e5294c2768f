"""HTTP of a worker: probes, metrics, state, and one eligibility question at a time."""
