"""From parameter values to the data of a cone program, in one sparse product a matrix.

Rule 1: the pattern of the data never changes; an entry that a parameter can make nonzero is stored also where it is 0.
Rule 2: the answer is cvxpy's own: same columns, same rows, same order.

cvxpy compiles a DPP program into affine maps (its "parametrised cone program"): each stored entry of P, q, A and b is
a linear function of the vector of all parameter values and 1. Its own way of applying them builds and checks a dozen
sparse matrices a solve, which at the papers' sizes takes several times as long as the solver. Here the maps are laid
out once, and a solve overwrites the numbers in place.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

__all__ = ["ConeData", "Cones"]

Floats = NDArray[np.float64]


class Cones(NamedTuple):
    """minimise 1/2 x'Px + q'x + offset subject to b - A x in the cones; valid until the next `ConeData.at`."""

    p: Any
    """Upper triangle, CSC; empty where the objective is linear."""
    q: Floats
    offset: float
    a: Any
    """CSC."""
    b: Floats


class ConeData:
    """The affine maps of one compiled program."""

    def __init__(self, program: Any) -> None:
        """`program` is cvxpy's `ParamConeProg`, as `get_problem_data` returns it in `data["param_prob"]`."""
        self._columns = {
            parameter.name(): (program.param_id_to_col[parameter.id], parameter.shape)
            for parameter in program.parameters
        }
        self._vector = np.zeros(program.total_param_size + 1)
        self._vector[-1] = 1.0
        variables = int(program.x.size)
        program.reduced_A.cache()
        entries, (rows, starts, shape) = _map(program.reduced_A)
        last = int(starts[-2])  # the last column is the constant b
        self._a_map, self._b_map, self._b_rows = -entries[:last], entries[last:], rows[last:]
        self._a = sp.csc_array((np.zeros(last), rows[:last], starts[:-1]), shape=(shape[0], variables))
        self._b = np.zeros(shape[0])
        self._q_map = sp.csr_array(program.q)
        self._p_map: Any = None
        self._p = sp.csc_array((variables, variables))
        if program.P is not None:
            program.reduced_P.cache()
            entries, (rows, starts, _) = _map(program.reduced_P)
            columns = np.repeat(np.arange(variables), np.diff(starts))
            upper = np.flatnonzero(rows <= columns)
            counts = np.bincount(columns[upper], minlength=variables)
            self._p_map = entries[upper]
            pattern = (np.zeros(len(upper)), rows[upper], np.concatenate(([0], np.cumsum(counts))))
            self._p = sp.csc_array(pattern, shape=(variables, variables))

    def set(self, values: Mapping[str, ArrayLike]) -> None:
        """Give parameters their values; those not named keep theirs. KeyError for an unknown name."""
        for name, value in values.items():
            first, shape = self._columns[name]
            array = np.asarray(value, dtype=np.float64)
            assert array.shape == shape, f"parameter {name} has the shape {array.shape}, not {shape}"
            self._vector[first : first + array.size] = array.ravel(order="F")

    def at(self) -> Cones:
        """The data at the present values."""
        linear = self._q_map @ self._vector
        self._a.data[:] = self._a_map @ self._vector
        self._b[self._b_rows] = self._b_map @ self._vector
        if self._p_map is not None:
            self._p.data[:] = self._p_map @ self._vector
        return Cones(self._p, linear[:-1], float(linear[-1]), self._a, self._b)


def _map(reduced: Any) -> tuple[Any, tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, int]]]:
    """cvxpy's reduced tensor: a row of coefficients for each stored entry, and where the entries stand (CSC)."""
    rows, starts, shape = reduced.problem_data_index
    return sp.csr_array(reduced.reduced_mat), (np.asarray(rows), np.asarray(starts), shape)
