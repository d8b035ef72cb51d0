"""Who is asking: passwords, tokens, API keys."""
