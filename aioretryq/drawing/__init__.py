"""Workflows as people look at them: trees, of what was composed and of what came of it, as text and as pictures."""
