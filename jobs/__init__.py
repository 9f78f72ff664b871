"""The command line and what it is made of. Imports everything below; nothing below imports it."""
