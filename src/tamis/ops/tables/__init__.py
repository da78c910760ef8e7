"""Unicode tables of the byte kernels, pinned so that results do not depend on the interpreter."""
