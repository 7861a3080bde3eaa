"""Child processes: how they are started, what they may see, how they answer and how they end."""
