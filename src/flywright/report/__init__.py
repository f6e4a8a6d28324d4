"""The report of a run: reads artifacts, writes one HTML page and its numbers; nothing else.

    from flywright.report.page import write_report
    write_report(Path("runs/mine"))          # the path of runs/mine/report/index.html

`flywright.report.trace.trace` tells where one record came from and what came from it.
"""
