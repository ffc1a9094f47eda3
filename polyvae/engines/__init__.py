"""Runs of MD engines, with a bias on a latent CV and without one, as arrays.

An engine is a function, `runs.Engine`; each module here makes one for a program. What a script needs to bring an
engine of its own is such a function.
"""
