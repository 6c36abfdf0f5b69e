"""Prints how many inputs were tried, also where xdist runs the tests elsewhere."""


def pytest_terminal_summary(terminalreporter):
    reports = [
        report for kind in ("passed", "failed", "xfailed") for report in terminalreporter.getreports(kind)
    ]
    counts = [value for report in reports for name, value in report.user_properties if name == "fuzz"]
    for door, right, refused, wrong in counts:
        terminalreporter.write_line(
            f"fuzz {door}: {right} right, {refused} refused in a sentence, {wrong} wrong"
        )
    if counts:
        terminalreporter.write_line(f"fuzz: {sum(sum(count[1:]) for count in counts)} inputs")
