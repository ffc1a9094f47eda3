"""Runs of MD engines, with a bias on a latent CV and without one, as arrays.

An engine is a function `engine(cv, *, bias, start, steps, stride, seed, folder)` that returns a `runs.Run`; each
module here makes one for a program. What a script needs to bring an engine of its own is such a function.
"""
