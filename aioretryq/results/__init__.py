"""What callers hold of what they have sent: results of one task, of a group, of very many."""
