"""What single heads do: their maps, their grammar, their importance."""
