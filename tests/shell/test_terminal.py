"""What is printed where there is no terminal: a file, a pipe."""

from contextlib import redirect_stdout
from io import StringIO

from rich.table import Table

from syncflow_dagster.terminal import PLAIN_WIDTH, console


def test_a_message_is_one_line_and_a_table_keeps_its_width() -> None:
    message = (
        "withheld: " + "many words " * 20 + "(syncflow apply 01983b1e-7c1e-7cc3-98c4-dc0c0c07398f)"
    )
    table = Table("words", box=None, pad_edge=False)
    table.add_row(message)

    with redirect_stdout(StringIO()) as said:
        console().print(message, style="red", markup=False)
    with redirect_stdout(StringIO()) as drawn:
        console().print(table)

    assert said.getvalue() == f"{message}\n"
    assert max(map(len, drawn.getvalue().splitlines())) <= PLAIN_WIDTH
