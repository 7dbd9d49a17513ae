"""What the Python scripts share: a question that nano was trained to answer with a call, and a runner of checks."""

import json
import os
import sys
import traceback
from importlib.metadata import version

MODEL = os.environ.get("CLIENT_MODEL", "nano")
SERVER = os.environ["OSSIA_URL"]

# nano learned sums and calls in these words; it thinks before both.
SUM = "What is 12 plus 30?"
ASK = "What is the weather in Paris in celsius?"
RESULT = '{"temperature":21,"sky":"sunny"}'
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather of a city", "parameters": PARAMETERS},
}
RESPONSES_TOOL = {"type": "function", "strict": False, **CHAT_TOOL["function"]}


def equal(found, wanted, what=""):
    assert found == wanted, f"{what}: {found!r}, wanted {wanted!r}"


def is_asked_call(name, arguments):
    """The call that answers ASK."""
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    equal((name, arguments), ("get_weather", {"city": "Paris", "unit": "celsius"}))


def goes_on(made, prompt, cached):
    """The second prompt of a tool loop begins with all of the first and of what was made of it, thinking included.

    `made` counts both. Only equal tokens are found in the cache, and the last one made is not computed before it is
    read: all but one are cached exactly if nothing was lost and nothing changed on the way through the client.
    """
    assert made < prompt and cached >= made - 1, f"{cached} of {made} tokens are at the beginning of {prompt}"


def raises(kind, call):
    """The error, which must be of exactly this class."""
    try:
        call()
    except Exception as error:
        assert type(error) is kind, f"{type(error).__name__}, wanted {kind.__name__}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def main(package, checks):
    """Runs all checks, one line each; the exit status says whether all passed."""
    failed = 0
    for check in checks:
        try:
            check()
            print(f"  ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"  FAILED  {check.__name__}\n{traceback.format_exc()}")
    print(f"  {package} {version(package)}: {len(checks) - failed} of {len(checks)} checks")
    sys.exit(failed > 0)
