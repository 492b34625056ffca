"""`nsqkit up`: an nsqlookupd and some nsqds on this machine, with one command and one log.

cli.py         the command line, signals, and the exit code
options.py     what can be asked for
plan.py        which programs run, on which ports, with which flags           [pure]
machine.py     is the machine ready: ports free, directories writable?
banner.py      the table of addresses                                         [pure]
supervisor.py  starts the programs, starts them again, stops them
restarts.py    when to start a program again, and when to give up             [pure]
child.py       what a program runs in, so that it ends when `up` does
lines.py       bytes of many processes -> labelled lines of limited length    [pure]
terminal.py    lines -> the terminal, dropped when it can't keep up
"""
