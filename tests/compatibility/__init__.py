"""Records as other systems write and read them since the contract was published, one a line in `records.ndjson`.

Each line has a record of a schema, how it is read, and what it needs: the paths that it cannot be read without. Lines
are never edited: a change of the models that a line does not survive breaks somebody. For a record that is new,
`python -m tests.compatibility` appends a line.
"""
