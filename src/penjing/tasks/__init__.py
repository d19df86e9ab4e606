"""Problems, graders and tools."""
