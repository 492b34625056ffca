"""What `nsqkit up` shows first: where everything listens, how to publish, how to stop."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nsqkit.address import join_address
from nsqkit.up.plan import NSQLOOKUPD, Program


def banner(programs: Sequence[Program], console: Console) -> str:
    """The table of addresses and two lines below it, in the console's width and colours."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "TCP", "HTTP", "data"):
        table.add_column(heading, overflow="fold")
    for program in programs:
        tcp = join_address(program.host, program.ports.tcp)
        table.add_row(program.name, tcp, url(program), program.data_path)
    first = next(program for program in programs if program.name != NSQLOOKUPD)
    with console.capture() as capture:
        console.print(table)
        console.print(f"\nPublish:  curl -d 'hello' '{url(first)}/pub?topic=greetings'", soft_wrap=True)
        console.print("Stop:     Ctrl-C here; a second one kills\n", soft_wrap=True)
    return capture.get()


def url(program: Program) -> str:
    """Where its HTTP answers."""
    return f"http://{join_address(program.host, program.ports.http)}"
