"""Every request comes from an address of its own, so that what is counted for each address stops none of them."""

import itertools

import schemathesis

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    high, low = divmod(next(_numbers) % 65_536, 256)
    case.headers["X-Forwarded-For"] = f"198.18.{high}.{low}"
