"""The commands: one composition root each, argv in and exit status out."""
