"""What becomes of each of Celery's settings and options: the tables, and the translation made of them."""
