"""What the convex solvers of the papers share.

    program     a convex program written once with parameters, compiled once, solved many times; typed errors
    lift        the semidefinite relaxation of association and offloading, whole or in one block a user
    rounding    from fractional associations to one server a user

`rounding` needs NumPy and SciPy alone; `program` and `lift` load cvxpy, so import them where they are used.
"""

__all__: list[str] = []
