"""What the Python peers answer: the demo handlers of guests/src/workload.rs, written as Python
would. Owns no server; rsgi.py and asgi.py are the applications."""

FIB_MAX = 40
FIB_EXPECTED = b"expected one decimal number from 0 to 40 after the route, as in /fib/32\n"


def answer(path):
    """The status and the body, which is plain text."""
    if path == "/hello":
        return 200, b"Hello, World!"
    if not path.startswith("/fib/"):
        return 404, b"not found\n"
    number = fib_number(path.removeprefix("/fib/"))
    return (400, FIB_EXPECTED) if number is None else (200, b"%d\n" % fibonacci(number))


def fib_number(digits):
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 2
    number = int(digits) if plain else FIB_MAX + 1
    # What does not read back the same had leading zeros.
    return number if number <= FIB_MAX and str(number) == digits else None


def fibonacci(n):
    """By naive recursion, which is the point: it costs calls and nothing else."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
