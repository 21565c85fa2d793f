"""Measures of what was generated, one family a file: each knows no files and no protocol.

A name says which network measured: `FID`, `LPIPS-alex` and `CSIM` are what papers mean only with
the very weights that papers used; anything else carries its backbone's name.
"""
