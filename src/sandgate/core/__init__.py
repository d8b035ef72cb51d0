"""The vocabulary of the product: identifiers, states, records and errors.

Nothing in here knows HTTP, SQL or an operating system; every other layer may import it.
"""
