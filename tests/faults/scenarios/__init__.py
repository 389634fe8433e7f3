"""One function for each fault: it takes an arena, breaks something in it, and returns the report."""
