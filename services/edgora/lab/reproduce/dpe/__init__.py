"""The table and the figures of the DPE paper, made again (dpe.md 10).

methods      who is compared, how a run is timed, means and intervals
table2       times and iterations by size, both lifts
rounding     fig2: five roundings from random starts
rank         fig3: the rank penalty, and what it is worth
chain        fig4: the chain of problems
comparison   fig5 and fig6: convergence, methods, value against time
sweeps       fig7: bandwidth, clocks, power, weights, preference
"""

from edgora.lab.reproduce.dpe.chain import fig4
from edgora.lab.reproduce.dpe.comparison import fig5, fig6
from edgora.lab.reproduce.dpe.rank import fig3
from edgora.lab.reproduce.dpe.rounding import fig2
from edgora.lab.reproduce.dpe.sweeps import fig7
from edgora.lab.reproduce.dpe.table2 import table2

__all__ = ["fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "table2"]
