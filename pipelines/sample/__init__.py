"""The embedded sample corpus of `make demo`: built from package photographs, served on loopback."""
