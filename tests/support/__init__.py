"""What tests share: a bridge in a process of its own, and a receiver with a will of its own."""
