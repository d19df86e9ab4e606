"""What a run leaves on disk: directories, logs, manifests, records."""
