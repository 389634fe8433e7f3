"""An application with a mistake in it."""

raise ValueError("a mistake of the application")
