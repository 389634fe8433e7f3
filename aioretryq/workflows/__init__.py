"""Workflows: from signatures to the messages that are sent, now and by the tasks themselves."""
