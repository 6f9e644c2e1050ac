"""The `lr-arena` command: what it asks for, what it shows. Everything it knows it has from the packages behind it."""
