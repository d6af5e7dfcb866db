"""The table and the figures of the TCR paper, made again (tcr.md 12).

methods       who is compared, how a run is timed, means and intervals
table2        CPU and wall time by size, both lifts, growth
layout        fig3: users, servers and who serves whom
convergence   fig4 and fig5: part 1, part 2, the whole loop
comparison    fig6: delay, energy, trust, cost and TCR of five methods, our solver and its bound
sweeps        fig7, fig8, fig9: bandwidth, server clocks, weights
"""

from edgora.lab.reproduce.tcr.comparison import fig6
from edgora.lab.reproduce.tcr.convergence import fig4, fig5
from edgora.lab.reproduce.tcr.layout import fig3
from edgora.lab.reproduce.tcr.sweeps import fig7, fig8, fig9
from edgora.lab.reproduce.tcr.table2 import table2

__all__ = ["fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "table2"]
