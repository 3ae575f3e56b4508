"""The program text is one piece, and its build number changes when anything in it does."""

from pathlib import Path

import pytest

from datapath.layout import MAPS
from datapath.source import FOLDER, read_source


def test_our_own_headers_are_put_in_place_once() -> None:
    text = read_source(Path("/pins"), {}).text
    assert '#include "' not in text
    assert text.count("struct addr_key {") == 1
    assert text.count('#line 1 "layout.h"') == 1


def test_messages_will_name_the_right_line() -> None:
    lines = read_source(Path("/pins"), {}).text.splitlines()
    main = (FOLDER / "mesh.bpf.c").read_text().splitlines()
    wanted = next(n for n, line in enumerate(main, 1) if line.startswith("int from_tunnel"))
    at = lines.index(main[wanted - 1])
    mark = max(n for n in range(at) if lines[n].startswith("#line"))
    number, name = lines[mark].split()[1:]
    assert (name, int(number) + at - mark - 1) == ('"mesh.bpf.c"', wanted)


def test_the_build_number_depends_on_text_sizes_and_pins() -> None:
    builds = {
        read_source(pins, sizes).build for pins in (Path("/one"), Path("/two")) for sizes in ({}, {"md_ipcache": 5})
    }
    assert len(builds) == 4
    assert read_source(Path("/one"), {}).build in builds


def test_every_map_has_its_size_as_a_flag() -> None:
    flags = read_source(Path("/pins"), {"md_cidrs": 7}).flags
    assert "-DMD_CIDRS_SIZE=7" in flags
    for name, spec in MAPS.items():
        if name != "md_cidrs":
            assert f"-D{name.upper()}_SIZE={spec.size}" in flags


def test_the_size_of_an_unknown_map_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown map md_x"):
        read_source(Path("/pins"), {"md_x": 1})
