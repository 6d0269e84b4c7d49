"""What other tools say of a capture, compared with what syntap says of it."""
