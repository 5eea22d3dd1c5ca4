"""Losses that bring parameters of their own: modules whose ``forward(scored)`` is a scalar tensor.

They have a table of their own, since opening one takes sizes, its parameters are trained and saved for resuming, and
none of it is part of the model in the end. A recipe names them among its ``[[losses]]`` like any other. Their
parameters need the mean of the devices' gradients, as those of the model do.
"""
