"""Names, and what the user wrote, found by `gift_jax.registry`."""

import linecache
import pathlib
import subprocess
import sys
import types

import pytest

from gift_jax import registry
from gift_jax.runtime.errors import InputError, UnknownNameError

ROOT = pathlib.Path(registry.__file__).parents[1]
KNOWN = {"gift": len, "kl": max}

MINE = """
import functools

def margin(student, teacher, labels, *, temperature=2.0):
    return temperature

class Family:
    @staticmethod
    def member():
        return "found"

threshold = 0.5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_code.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "my_code.py"
    sys.modules.pop("my_code", None)


def test_a_name_of_the_project_comes_first(mine):
    assert registry.find("loss", "gift", KNOWN) is len
    assert registry.find("loss", "my_code:margin", {"my_code:margin": max}) is max


def test_what_the_user_wrote_is_found(mine):
    assert registry.find("loss", "my_code:margin", KNOWN)(0, 0, 0) == 2.0
    assert registry.find("loss", "my_code:Family.member", KNOWN)() == "found"


def test_a_module_is_found_where_the_command_runs(tmp_path):
    (tmp_path / "here.py").write_text("def loss(): return 'here'")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text("def loss(): return 'inner'")
    program = (
        "import sys; sys.path = [p for p in sys.path if p not in ('', sys.argv[1])]\n"
        "from gift_jax import registry\n"
        "for name in ('here:loss', 'package.inner:loss'):\n"
        "    print(registry.find('loss', name, {})())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["here", "inner"], done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gfit",
            r"unknown loss 'gfit' \(did you mean 'gift'\?\); .* gift, kl, or pack",
        ),
        ("my-code:margin", "unknown loss 'my-code:margin'; expected one of gift, kl"),
        ("my_code:", "unknown loss 'my_code:'"),
        (":margin", "unknown loss ':margin'"),
        ("nowhere:margin", "loss 'nowhere:margin' cannot be imported: No module named"),
        ("my_code.inner:margin", "cannot be imported: .*'my_code' is not a package"),
        (
            "my_code:margn",
            r"'margn' \(did you mean 'margin'\?\); .* Family, functools, m",
        ),
        ("my_code:Family.membr", r"did you mean 'member'"),
        ("my_code:threshold.rael", "did you mean 'real'"),
        ("my_code:threshold", "is a float, expected something to call"),
    ],
)
def test_what_cannot_be_found_says_why(mine, name, message):
    with pytest.raises(InputError, match=message):
        registry.find("loss", name, KNOWN)


def test_a_module_that_needs_a_package_that_is_missing(mine):
    mine.write_text("import not_installed_anywhere")
    with pytest.raises(InputError, match="'not_installed_anywhere'"):
        registry.find("loss", "my_code:margin", KNOWN)


def test_a_fault_in_the_user_s_own_module_keeps_its_traceback(mine):
    mine.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        registry.find("loss", "my_code:margin", KNOWN)


def test_an_unknown_name_is_an_error_for_the_user():
    error = registry.unknown_name("mix", "cut-mix", ["cutmix"], or_else=", or none")
    assert isinstance(error, UnknownNameError)
    expected = "unknown mix 'cut-mix' (did you mean 'cutmix'?); expected one of cutmix"
    assert str(error) == expected + ", or none"


def test_the_fingerprint_of_code_is_that_of_its_file(mine):
    before = registry.code_fingerprint("my_code:margin")
    assert len(before) == 16
    assert int(before, 16) >= 0
    assert registry.code_fingerprint("my_code:Family.member") == before
    mine.write_text(MINE.replace("2.0", "2.25"))
    # The file that was loaded, until it is loaded anew.
    assert registry.code_fingerprint("my_code:margin") == before
    registry.reload_edited()
    assert registry.code_fingerprint("my_code:margin") != before
    mine.write_text(MINE)
    registry.reload_edited()
    assert registry.code_fingerprint("my_code:margin") == before
    assert registry.code_fingerprint("gift") is None


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("sgd", "sgd", {}),
        ("kl-t_squared=True", "kl", {"t_squared": "True"}),
        ("sgd-weight_decay=1e-3-nesterov=True", "sgd", {"weight_decay": "1e-3"}),
        ("a.b:c-gamma=-0.5", "a.b:c", {"gamma": "-0.5"}),
        ("x-y", "x-y", {}),
    ],
)
def test_options_are_split_from_names(text, name, options):
    found_name, found = registry.split_options(text)
    assert found_name == name
    assert options.items() <= found.items()
    assert len(found) == text.count("=")


def test_names_are_joined_by_plus():
    assert registry.names("kl + a.b:c-lr=1e-3") == ["kl", "a.b:c-lr=1e-3"]


def test_a_label_has_what_is_not_the_default():
    fields, defaults = {"a": 1, "b": 0.5, "c": "x"}, {"a": 1, "b": 0.25, "c": "y"}
    assert registry.label("name", fields, defaults) == "name-b=0.5-c=x"
    name, options = registry.split_options("name-b=0.5-c=x")
    assert (name, options) == ("name", {"b": "0.5", "c": "x"})


def test_keyword_defaults_leave_out_what_has_none():
    class Module:
        def __init__(self, classes, width=8, *, depth=2, needed, parent=None, name=""):
            pass

    assert registry.keyword_defaults(Module) == {"width": 8, "depth": 2}
    assert registry.keyword_defaults(Module, without=["depth"]) == {"width": 8}


CELL = """
def margin(student_logits, teacher_logits, labels):
    return {} * student_logits.sum(-1)

class Net:
    width = 3
    def call(self):
        return {}
"""


def run_cell(number, monkeypatch):
    """Defines what a notebook's cell does, which IPython keeps the lines of."""
    notebook, source = types.ModuleType("notebook"), CELL.format(number, number)
    lines = source.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, f"<{number}>", (1, None, lines, f"<{number}>"))
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    exec(compile(source, f"<{number}>", "exec"), vars(notebook))


def test_the_script_that_runs_keeps_the_code_that_it_began_with(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib\n"
        "from gift_jax import registry\n"
        "def margin(): pass\n"
        "before = registry.code_fingerprint('__main__:margin')\n"
        "pathlib.Path(__file__).write_text('edited')\n"
        "registry.reload_edited()\n"
        "print(before == registry.code_fingerprint('__main__:margin'))\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("name", ["notebook:margin", "notebook:Net"])
def test_the_fingerprint_of_a_notebook_s_code_is_that_of_what_is_named(
    monkeypatch, name
):
    run_cell(1, monkeypatch)
    before = registry.code_fingerprint(name)
    run_cell(2, monkeypatch)
    assert registry.code_fingerprint(name) != before
    run_cell(1, monkeypatch)
    assert registry.code_fingerprint(name) == before
