"""What we talk about: values and rules, standard library only, no I/O."""
