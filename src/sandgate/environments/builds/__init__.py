"""Templates that users have built: what is known of them, and how one is made."""
