"""Serving points from measurement: tables in, fitted curves and a roofline, points out.

`formats` reads published tables into `Measurement`s; `curves` interpolates what was measured,
`roofline` estimates what was not; `points` turns either into the catalog's serving points.
"""
