"""The wire contract: pydantic models of every record and of an org's settings. Imports nothing but pydantic."""
