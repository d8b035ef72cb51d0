"""The filtering proxy: an unprivileged process outside, through which environments reach the hosts that they may reach.

An environment has no route. Connections come out of it through a socket that listens on its own loopback and that this
process accepts from; start with ``server``.
"""
