"""What distilled images a path holds: `python -m gift_jax.inspect PATH`."""

from gift_jax.distilled.inspect import main

if __name__ == "__main__":
    main()
