"""consent-streams: consent changes in, current state in a Faust table, eligibility decisions out."""

__version__ = "0.1.0"
