"""What happens to a record: one file per agent, and what they have in common."""
