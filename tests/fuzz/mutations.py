"""Changes to bytes, records, values and texts such as people, disks and strangers make; all follow from a seed."""

import copy
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

LIMIT_S = 20  # for one input
LONGEST = 600  # characters of a message
NUMBERS = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 0x7FFFF000, 2**32 - 1)
VALUES = (
    None, True, False, 0, 1, -1, 2, 16, 0.5, -0.0, 1e-320, 1e308, 10**12, 10**400, float("nan"), float("inf"), "", " ",
    "no", "false", "None", "nan", "01", "1e2", "16.0", "-3", "1_0", "٣", "é", "../evil", "x/y", "a\nb", "\x00", "\udcff",
    "x" * 5000, "9" * 5000, "1," * 2000, "${HOME}", "random", "published", "all", b"x", [], [1, 2], ["all"], {}, {"a": 1},
    {"epochs": 3}, object(), 1 + 2j, Path("x"), np.int64(3), np.float32(2), np.array([1, 2]), set(), range(3),
)  # fmt: skip
TEXTS = (
    "<script>document.title='hit'</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "http://e\\<img>",
    "<svg/onload=alert(1)>", "![x](http://e.test/a.png)", "a|b", "a\\|b", "\\", "\\write18{ls}", "$x$", "$$", "}{", "%", "&amp;",
    "# head", "---", "- [ ] x", "`x`", "``", "*a* _b_ ~c~", "a\nb", "a\r\nb", "a\u2028b", "a\x00b", "a\x1b[31mb", "\u202eabc",
    "=1+1", "<!--", "]]>", "<a href='//e.test'>x</a>", "&#106;avascript:", "\t", "", " ", "é漢字🙂", "x" * 3000, "~^#_&%{}",
    "<style>*{background:url(http://e.test)}</style>", "<meta http-equiv=refresh content='0;url=http://e.test'>",
    "<iframe src=//e.test>", "\\input{/etc/passwd}", "^^5cwrite18", "<base href=//e.test>", "a\x0bb\x0cc\x85d",
)  # fmt: skip


def pick(values, rng):
    """One of several, whatever they are."""
    return values[int(rng.integers(len(values)))]


def mutate(content, rng):
    """Bytes with one to three changes, half of them near the beginning, where headers are."""
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        end = min(len(content), 80) if rng.random() < 0.5 else len(content)
        at = int(rng.integers(end + 1))
        size = int(pick((1, 4, 32, 1000), rng))
        piece = content[at : at + size]
        kind = int(rng.integers(8))
        if kind < 2 and piece:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            content[at : at + 4] = int(pick(NUMBERS, rng)).to_bytes(4, pick(("little", "big"), rng))
        elif kind == 3:
            del content[at:]
        elif kind == 4:
            del content[at : at + size]
        elif kind == 5:
            content[at:at] = piece * int(pick((1, 5), rng))
        elif kind == 6:
            content[at : at + size] = bytes(len(piece))
        else:
            content[at : at + size] = rng.bytes(size)
    return bytes(content)


def mutate_text(text, rng):
    """A text of lines, with one to three of its words replaced by other values or lines moved."""
    lines = text.splitlines()
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(lines)))
        words = lines[at].split(" ")
        words[int(rng.integers(len(words)))] = str(
            pick((*TEXTS, *VALUES, *words, "[" * 2000, "a." * 9000), rng)
        )
        lines[at] = pick(
            (" ".join(words), lines[at][: len(lines[at]) // 2], pick(lines, rng), "", lines[at] * 2), rng
        )
    return "\n".join(lines)


def nested(depth):
    """A list in a list in a list ..."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def mutate_record(record, rng):
    """A JSON record in which a value somewhere is another one, or gone."""
    node = result = copy.deepcopy(record)
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = pick(keys, rng)
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
            break
        node = node[key]
    plain = [value for value in VALUES if isinstance(value, None | bool | int | float | str | list | dict)]
    if rng.random() < 0.2:
        del node[key]
    elif rng.random() < 0.2 and isinstance(node, dict):
        node[str(pick(TEXTS, rng))] = node.pop(key)
    else:
        node[key] = pick(
            [*plain, nested(500), node[key] * 2 if isinstance(node[key], str | list) else -7], rng
        )
    return result


class TooLong(BaseException):
    """Nothing that waits for ever may catch it."""


@contextmanager
def limited(seconds=LIMIT_S):
    """End what takes too long. On a machine that has other things to do, waiting for it counts less than computing."""
    began = time.process_time(), time.monotonic()

    def end(*_):
        computed, waited = time.process_time() - began[0], time.monotonic() - began[1]
        if computed > seconds / 4 or waited > 6 * seconds:
            raise TooLong(f"no answer within {waited:.0f} s, {computed:.0f} s of them on the CPU")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
