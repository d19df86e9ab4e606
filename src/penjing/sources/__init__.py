"""Files to rows: formats, documents, quarantine."""
