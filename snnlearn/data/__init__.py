"""Files that come with the library."""
