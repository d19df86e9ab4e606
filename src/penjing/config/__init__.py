"""What a run is: its schema and how a file becomes one."""
