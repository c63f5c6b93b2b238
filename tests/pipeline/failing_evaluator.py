"""An evaluator that fails when it measures."""


def make(split, transform, *, devices, batch_size, workers):
    def measure(model, state):
        raise OSError("the disk of this evaluator is full")

    return measure
