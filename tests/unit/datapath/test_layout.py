"""The ctypes twin equals the C headers: a C program prints what the compiler makes of them."""

import ctypes
import json
import re
import subprocess
from pathlib import Path

import pytest

from datapath import layout, policylayout, servicelayout

BPF = Path(layout.__file__).parent / "bpf"
HEADERS = ("layout.h", "service_layout.h", "policy_layout.h")


def _program() -> str:
    lines = [
        "#include <stddef.h>",
        "#include <stdio.h>",
        '#include "layout.h"',
        '#include "drop.h"',
        '#define S(t) printf("\\"%s\\": %zu,\\n", #t, sizeof(struct t));',
        '#define F(t, m) printf("\\"%s.%s\\": [%zu, %zu],\\n", #t, #m, '
        "offsetof(struct t, m), sizeof(((struct t *)0)->m));",
        '#define C(c) printf("\\"%s\\": %ld,\\n", #c, (long)c);',
        'int main(void) { puts("{");',
    ]
    for name, twin in layout.STRUCTS.items():
        lines.append(f"S({name})")
        lines += [f"F({name}, {field[0]})" for field in twin._fields_]
    lines += [f"C({name})" for name in _constants()]
    return "\n".join([*lines, 'puts("\\"end\\": 0}"); return 0; }'])


def _constants() -> dict[str, int]:
    constants = {"LAYOUT_VERSION": layout.LAYOUT_VERSION, "IDENTITY_BITS": layout.IDENTITY_BITS}
    constants |= {f"FAMILY_{family.name}": int(family) for family in layout.Family}
    constants |= {f"PEER_{flag.name}": int(flag) for flag in layout.PeerFlag}
    constants |= {f"SVC_{flag.name}": int(flag) for flag in servicelayout.SvcFlag}
    constants |= {f"CLIENT_{kind.name}": int(kind) for kind in servicelayout.ClientKind}
    constants |= {f"NAT_{direction.name}": int(direction) for direction in servicelayout.NatDirection}
    constants |= {f"NODE_{flag.name}": int(flag) for flag in layout.NodeFlag}
    constants |= {"KNOWN_BITS4": layout.KNOWN_BITS4, "KNOWN_BITS6": layout.KNOWN_BITS6}
    constants["DROP_REASONS"] = len(layout.DropReason)
    for reason in layout.DropReason:
        name = reason.name
        constants[name if reason in layout.NOT_DROPS else f"DROP_{name}"] = int(reason)
    constants |= {f"ENDPOINT_{flag.name}": int(flag) for flag in layout.EndpointFlag}
    constants |= {f"SUBJECT_{flag.name}": int(flag) for flag in policylayout.SubjectFlag}
    constants |= {f"VERDICT_{code.name}": int(code) for code in policylayout.VerdictCode}
    return constants


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("layout")
    source = folder / "layout.c"
    source.write_text(_program())
    subprocess.run(["cc", "-I", BPF, "-o", folder / "layout", source], check=True)
    output = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout
    facts: dict[str, object] = json.loads(output)
    return facts


@pytest.mark.parametrize("name", layout.STRUCTS)
def test_twin_has_the_layout_of_the_c_struct(name: str, compiled: dict[str, object]) -> None:
    twin = layout.STRUCTS[name]
    assert ctypes.sizeof(twin) == compiled[name]
    for field in twin._fields_:
        member = getattr(twin, field[0])
        assert [member.offset, member.size] == compiled[f"{name}.{field[0]}"]


def test_constants_are_equal(compiled: dict[str, object]) -> None:
    constants = _constants()
    assert {name: compiled[name] for name in constants} == constants


def test_every_struct_and_every_constant_has_a_twin() -> None:
    headers = "".join((BPF / name).read_text() for name in HEADERS)
    assert sorted(re.findall(r"^struct (\w+) \{", headers, re.M)) == sorted(layout.STRUCTS)
    reasons = re.findall(r"^\t(\w+) = \d+,", (BPF / "drop.h").read_text(), re.M)
    assert len(reasons) == len(layout.DropReason)


def test_twin_fields_fill_the_struct_without_hidden_padding() -> None:
    for name, twin in layout.STRUCTS.items():
        assert sum(getattr(twin, f[0]).size for f in twin._fields_) == ctypes.sizeof(twin), name


def test_every_map_is_declared_in_c_with_the_same_types() -> None:
    names: dict[object, str] = {twin: f"struct {name}" for name, twin in layout.STRUCTS.items()}
    expected = [
        (spec.kind.name.lower(), names.get(spec.key, "__u32"), names.get(spec.value, "__u32"), name)
        for name, spec in layout.MAPS.items()
        if name not in (layout.MAGLEV_PATTERN, "md_maglev")
    ]
    text = (BPF / "maps.h").read_text()
    declared = re.findall(r'BPF_TABLE_PINNED\("(\w+)", ([\w ]+), ([\w ]+), (\w+), MD_\w+_SIZE', text)
    assert [each for each in declared if each[3] != layout.MAGLEV_PATTERN] == expected


def test_a_maglev_table_is_the_value_of_its_pattern_and_the_outer_map_refers_to_that() -> None:
    text = (BPF / "maps.h").read_text()
    assert f'"array", __u32, struct maglev, {layout.MAGLEV_PATTERN},' in text
    assert f'"hash_of_maps${layout.MAGLEV_PATTERN}", struct front_key, __u32, md_maglev,' in text


def test_names_fit_into_what_the_kernel_keeps() -> None:
    assert all(len(name) <= 15 for name in layout.MAPS)


def test_drop_counters_have_room_for_reasons_to_come() -> None:
    assert len(layout.DropReason) <= layout.MAPS["md_drops"].size
