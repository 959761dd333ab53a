"""Options: declared in `schema`, read from YAML and the command line in `loading`; nothing here imports torch."""
