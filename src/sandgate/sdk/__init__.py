"""For programs that use a server over HTTP: :class:`sandgate.sdk.client.Client`, and what it answers and raises."""
