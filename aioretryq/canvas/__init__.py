"""What users compose workflows with. Workers do not know it: they follow what is in their messages (`workflows/`)."""
