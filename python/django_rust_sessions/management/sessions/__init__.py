"""What `manage.py sessions` does: a module for each of its subcommands."""
