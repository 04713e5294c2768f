"""The commands: their options and codes alone, and what they do on a real broker."""
